// The dashboard draws its charts, and refreshes its figures without losing the reader's place: only what differs is
// exchanged, opened tables stay open, focus and scroll stay where they are.
(() => {
    "use strict";

    const figures = document.getElementById("dash-figures");
    const toggle = document.getElementById("dash-switch");
    const state = document.getElementById("dash-state");
    if (!figures) {
        return;
    }

    // --- Charts ---------------------------------------------------------------------------------------------------
    const charts = new Map();
    const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
    const written = {
        count: (value) => compact.format(value),
        usd: (value) => `$${value >= 1000 ? compact.format(value) : value.toPrecision(3).replace(/\.?0+$/, "") || "0"}`,
        ms: (value) => (value >= 1000 ? `${+(value / 1000).toPrecision(3)} s` : `${+value.toPrecision(3)} ms`),
    };
    const tones = { good: "--rec-good", bad: "--rec-bad", warn: "--rec-warn", info: "--rec-info", first: "--dash-first", second: "--dash-second" };
    // Lines are told apart by their strokes too.
    const dashes = [[], [6, 3], [2, 3]];

    const colour = (name) => getComputedStyle(figures).getPropertyValue(name).trim();

    // Canvas knows no var(), and Chart.js no oklch(): the browser itself says what a colour is.
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const plain = (value) => {
        probe.clearRect(0, 0, 1, 1);
        probe.fillStyle = value;
        probe.fillRect(0, 0, 1, 1);
        const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data;
        return `rgb(${red}, ${green}, ${blue})`;
    };

    const read = (key) => JSON.parse(document.getElementById(`dash-data-${key}`).textContent);

    const datasets = (data) => data.lines.map((line, index) => {
        const tone = plain(colour(tones[line.tone]));
        return {
            label: line.label,
            data: line.data,
            backgroundColor: tone,
            borderColor: tone,
            borderWidth: data.kind === "line" ? 2 : 0,
            borderDash: data.kind === "line" ? dashes[index % dashes.length] : [],
            pointRadius: data.labels.length > 1 ? 0 : 3,
            pointHitRadius: 8,
            spanGaps: false,
            maxBarThickness: 40,
        };
    });

    const options = (data) => {
        const text = plain(colour("--rec-text"));
        const grid = plain(colour("--rec-line"));
        const stacked = data.kind === "bar";
        return {
            animation: false,
            responsive: true,
            maintainAspectRatio: false,
            interaction: { mode: "index", intersect: false },
            onClick: (event, hits) => {
                if (hits.length) {
                    window.location.assign(data.urls[hits[0].index]);
                }
            },
            scales: {
                x: { stacked, grid: { display: false }, ticks: { color: text, maxRotation: 0, autoSkipPadding: 12, font: { size: 11 } } },
                y: {
                    stacked,
                    beginAtZero: true,
                    border: { display: false },
                    grid: { color: grid },
                    ticks: { color: text, maxTicksLimit: 5, font: { size: 11 }, callback: (value) => written[data.unit](value) },
                },
            },
            plugins: {
                legend: { display: data.lines.length > 1, position: "bottom", labels: { color: text, usePointStyle: true, pointStyle: stacked ? "rect" : "line", boxHeight: 8, pointStyleWidth: stacked ? 10 : 28, font: { size: 11 } } },
                tooltip: {
                    callbacks: {
                        title: (items) => data.times[items[0].dataIndex],
                        label: (item) => `${item.dataset.label}: ${item.raw === null ? "unknown" : written[data.unit](item.raw)}`,
                    },
                },
            },
        };
    };

    const draw = (canvas) => {
        const data = read(canvas.dataset.chart);
        const holder = document.getElementById(`dash-holder-${canvas.dataset.chart}`);
        canvas.setAttribute("aria-label", holder.dataset.summary);
        canvas.classList.add("dash-leads");
        const found = charts.get(canvas);
        if (found) {
            found.data = { labels: data.labels, datasets: datasets(data) };
            found.options = options(data);
            found.update("none");
            return;
        }
        charts.set(canvas, new window.Chart(canvas, {
            type: data.kind,
            data: { labels: data.labels, datasets: datasets(data) },
            options: options(data),
        }));
    };

    const drawAll = () => {
        for (const canvas of charts.keys()) {
            if (!canvas.isConnected) {
                charts.get(canvas).destroy();
                charts.delete(canvas);
            }
        }
        figures.querySelectorAll("canvas[data-chart]").forEach(draw);
        figures.dataset.drawn = String(charts.size);
    };

    drawAll();
    new MutationObserver(drawAll).observe(document.documentElement, { attributeFilter: ["class"] });

    // --- Refreshing -----------------------------------------------------------------------------------------------
    const pause = Number(figures.dataset.seconds) * 1000;
    const patience = 20000;
    const remembered = "llmchat.dashboard.refresh";
    let timer = null;
    let last = Date.now();
    let isAsking = false;

    const parts = (root) => [...root.querySelectorAll("[data-part]")];

    const exchange = (html) => {
        const fresh = new DOMParser().parseFromString(`<div>${html}</div>`, "text/html").body.firstElementChild;
        const focused = document.activeElement && figures.contains(document.activeElement) ? document.activeElement.id : "";
        const names = (root) => parts(root).map((part) => part.id).join();
        if (names(fresh) === names(figures)) {
            for (const part of parts(figures)) {
                const other = fresh.querySelector(`#${CSS.escape(part.id)}`);
                if (part.innerHTML !== other.innerHTML) {
                    part.innerHTML = other.innerHTML;
                }
                part.dataset.summary = other.dataset.summary || "";
            }
        } else {
            // Another page than before, such as the first figures after none.
            figures.innerHTML = fresh.innerHTML;
        }
        if (focused && document.activeElement.id !== focused) {
            document.getElementById(focused)?.focus({ preventScroll: true });
        }
        drawAll();
    };

    const say = (words, link) => {
        state.textContent = words;
        if (link) {
            const anchor = document.createElement("a");
            anchor.href = link;
            anchor.textContent = "Log in again";
            state.append(" ", anchor);
        }
    };

    const time = () => new Date().toISOString().slice(11, 19);

    const refresh = async () => {
        if (isAsking) {
            return;
        }
        isAsking = true;
        try {
            const response = await fetch(`${figures.dataset.source}${window.location.search}`, {
                credentials: "same-origin",
                signal: AbortSignal.timeout(patience),
            });
            if (response.redirected) {
                toggle.checked = false;
                schedule();
                say("You have been logged out, so these figures stay as they are.", window.location.href);
                return;
            }
            const html = await response.text();
            if (response.ok) {
                exchange(html);
                say("");
            } else {
                const told = new DOMParser().parseFromString(html, "text/html").querySelector("#dash-away p");
                const why = response.status === 503 ? "the database cannot be reached" : `the server answered ${response.status}`;
                say(`Not refreshed at ${time()} UTC: ${why}${told || response.status === 503 ? "" : ", see its log"}. The figures are the last ones known; the next try follows by itself.`);
            }
        } catch (error) {
            const why = error.name === "TimeoutError" ? `the server did not answer within ${patience / 1000} seconds` : "the server cannot be reached";
            say(`Not refreshed at ${time()} UTC: ${why}. The figures are the last ones known; the next try follows by itself.`);
        } finally {
            last = Date.now();
            isAsking = false;
        }
    };

    const schedule = () => {
        clearInterval(timer);
        timer = null;
        if (toggle.checked && !document.hidden) {
            timer = setInterval(refresh, pause);
        }
    };

    const kept = (value) => {
        try {
            return value === undefined ? localStorage.getItem(remembered) : localStorage.setItem(remembered, value);
        } catch {
            return null; // Storage may be forbidden; then the choice lasts as long as the page.
        }
    };

    toggle.checked = kept() !== "off";
    toggle.addEventListener("change", () => {
        kept(toggle.checked ? "on" : "off");
        schedule();
    });
    document.addEventListener("visibilitychange", () => {
        schedule();
        if (timer && Date.now() - last >= pause) {
            refresh();
        }
    });
    schedule();
})();
