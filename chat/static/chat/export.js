// The progress of an export that is being made; when it is over, the page says what became of it.
(() => {
    "use strict";

    const bar = document.querySelector("[data-export-progress]");
    const words = document.querySelector("[data-export-words]");
    if (!bar) {
        return;
    }
    const look = async () => {
        try {
            const answer = await fetch(bar.dataset.exportProgress, { credentials: "same-origin" });
            if (!answer.ok) {
                throw new Error(answer.statusText);
            }
            const said = await answer.json();
            if (said.over) {
                window.location.reload();
                return;
            }
            bar.value = said.percent;
            words.textContent = said.words;
        } catch {
            // The server may be away for a moment.
        }
        setTimeout(look, 2000);
    };
    setTimeout(look, 1000);
})();
