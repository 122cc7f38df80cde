// The form of a schedule: of all reports' fields, those of the chosen report are visible.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
    const report = document.querySelector("select[name=report]");
    if (!report) return;
    const show = () => {
        for (const part of document.querySelectorAll(".rep-params")) part.hidden = part.dataset.report !== report.value;
    };
    report.addEventListener("change", show);
    // A browser that goes back fills in what was chosen before.
    window.addEventListener("pageshow", show);
    show();
});
