// Copy buttons of the record's pages: `data-copy` names the element whose text is copied.
(() => {
    "use strict";

    // Without HTTPS, away from localhost, browsers offer no clipboard; the old way through a selection still works.
    const copy = async (text) => {
        if (navigator.clipboard && window.isSecureContext) {
            await navigator.clipboard.writeText(text);
            return;
        }
        const area = document.createElement("textarea");
        area.value = text;
        area.style.position = "fixed";
        area.style.opacity = "0";
        document.body.append(area);
        area.select();
        const done = document.execCommand("copy");
        area.remove();
        if (!done) {
            throw new Error("not allowed");
        }
    };

    document.addEventListener("click", async (event) => {
        const button = event.target.closest("[data-copy]");
        if (!button) {
            return;
        }
        const label = button.dataset.label || (button.dataset.label = button.textContent);
        try {
            await copy(document.getElementById(button.dataset.copy).textContent);
            button.textContent = "Copied";
        } catch {
            button.textContent = "Not copied";
        }
        setTimeout(() => { button.textContent = label; }, 1500);
    });
})();
