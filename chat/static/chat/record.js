// Copy buttons of the record's pages: `data-copy` names the element whose text is copied. `data-fragment` names what is
// loaded into a `details` once it is open, so that the page does not wait for it.
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

    const load = async (details) => {
        const place = details.querySelector("div");
        try {
            const response = await fetch(details.dataset.fragment, { credentials: "same-origin", redirect: "error" });
            if (!response.ok && response.status !== 400) {
                throw new Error(`the server answered ${response.status}`);
            }
            place.innerHTML = await response.text();
        } catch (error) {
            const reason = error instanceof TypeError ? "the server cannot be reached, or you are logged out" : error.message;
            place.replaceChildren(Object.assign(document.createElement("p"), { className: "rec-note", textContent: `Not counted: ${reason}. Load the page again.` }));
        }
    };

    // Whether it is open is remembered, for this browser.
    const watch = (details) => {
        const key = `llmchat-${details.id}`;
        let loaded = false;
        const toggled = () => {
            localStorage.setItem(key, details.open ? "open" : "closed");
            if (details.open && !loaded) {
                loaded = true;
                load(details);
            }
        };
        // On a phone the list comes first.
        const usual = window.matchMedia("(max-width: 600px)").matches ? "closed" : "open";
        details.open = (localStorage.getItem(key) ?? usual) === "open";
        details.addEventListener("toggle", toggled);
        toggled();
    };
    const watchAll = () => document.querySelectorAll("details[data-fragment]").forEach(watch);
    // The script stands in the page's head.
    if (document.readyState === "loading") {
        document.addEventListener("DOMContentLoaded", watchAll);
    } else {
        watchAll();
    }

    // A form that spends money is sent once, however often its button is pressed.
    document.addEventListener("submit", (event) => {
        const form = event.target;
        if (!form.matches("[data-once]")) {
            return;
        }
        if (form.dataset.sent) {
            event.preventDefault();
            return;
        }
        form.dataset.sent = "yes";
        const button = form.querySelector("button[type=submit]");
        button.textContent = "Waiting for the answer…";
        button.setAttribute("aria-busy", "true");
    });

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
