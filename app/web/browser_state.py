"""What a browser keeps of a visitor: who it is, and of each tab what was typed, asked and looked at.

A record of a tab outlives reloads, and is taken up by the next tab once its own is closed.
All of it comes from outside: whoever reads it checks it.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.context import LocalContext

OWNER = re.compile(r"[0-9a-f]{48}")
MAX_VISITORS = 10_000


class PageLoads:
    """One text for each page load, by its session; of too many the oldest go."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def __getitem__(self, session: str) -> str:
        return self._known.get(session, "")

    def __setitem__(self, session: str, text: str) -> None:
        self._known[session] = text
        self._known.move_to_end(session)
        while len(self._known) > MAX_VISITORS:
            self._known.popitem(last=False)


_owners = PageLoads()

SCRIPT = """<script>
window.haplo = (() => {
  const TAB = "haplo-tab", OWNER = "haplo-owner", STALE_MS = 180e3, FORGET_MS = 24 * 3600e3;
  let id = "", values = {}, restored = false, me = "";
  // a browser may forbid storage: then a reload begins anew, and all else works
  const attempt = (act) => { try { return act(); } catch { return null; } };
  const random = () => Array.from(crypto.getRandomValues(new Uint8Array(24)),
    (byte) => byte.toString(16).padStart(2, "0")).join("");
  const key = (name) => `${TAB}-${name}`;
  const record = (name) => attempt(() => JSON.parse(localStorage.getItem(key(name))));
  const store = (open) => { if (id) attempt(() =>
    localStorage.setItem(key(id), JSON.stringify({ values, open, at: Date.now() }))); };
  const left_behind = () => {
    const now = Date.now();
    const found = [];
    for (const name of attempt(() => Object.keys(localStorage)) || []) {
      if (!name.startsWith(`${TAB}-`)) continue;
      const known = record(name.slice(TAB.length + 1));
      if (!known || now - known.at > FORGET_MS) { attempt(() => localStorage.removeItem(name)); continue; }
      if (!known.open || now - known.at > STALE_MS) found.push([known.at, name.slice(TAB.length + 1)]);
    }
    found.sort((one, other) => other[0] - one[0]);
    return found.length ? found[0][1] : null;
  };
  return {
    open() {
      me = me || attempt(() => localStorage.getItem(OWNER)) || random();
      attempt(() => localStorage.setItem(OWNER, me));
      id = attempt(() => sessionStorage.getItem(TAB)) || left_behind() || random();
      const known = record(id) || {};
      values = known.values || {};
      // a duplicated tab has the other's session: while that one is open, this one goes on with a copy
      if (known.open && Date.now() - known.at < STALE_MS) id = random();
      attempt(() => sessionStorage.setItem(TAB, id));
      store(true);
      setTimeout(() => { restored = true; }, 20e3);  // also where nothing could be restored
      return { owner: me, ...values };
    },
    restored() { restored = true; },
    isRestored: () => restored,
    kept: () => values,
    save(name, value) { if (restored) { values[name] = value; store(true); } },
    store,
  };
})();
(() => {
  // a program that was restarted knows nothing of this page: it is loaded anew, and finds what it was about
  let program = null;
  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch("gradio_api/app_id", { cache: "no-store" });
      const { app_id } = await answer.json();
      if (program !== null && app_id !== program) location.reload();
      program = app_id;
    } catch { /* not up yet: looked for again */ }
  };
  look();
  setInterval(look, 5000);
  for (const event of ["visibilitychange", "online"]) addEventListener(event, look);
})();
addEventListener("pagehide", () => haplo.store(false));
addEventListener("pageshow", () => haplo.store(true));
setInterval(() => haplo.store(true), 20000);
</script>"""
# as a text: whatever looks like an uploaded file Gradio would want to read before anybody here sees it
OPEN = "() => [JSON.stringify(window.haplo.open())]"
RESTORED = "() => { window.haplo.restored(); }"


def remember(name: str, components: list[Component], trigger: str = "change") -> None:
    """Keep the values of these components in the browser, as a list, whenever one of them changes."""
    script = f"(...values) => {{ window.haplo.save('{name}', values); }}"
    gr.on(
        [getattr(component, trigger) for component in components],
        None,
        inputs=components,
        js=script,
        queue=False,
    )


def remember_choice(name: str, tab: gr.Tab) -> None:
    """Keep in the browser that this tab was chosen, as the value of ``name``."""
    tab.select(None, js=f"() => {{ window.haplo.save('{name}', '{tab.id}'); }}", queue=False)


def saved_values(text: Any) -> dict[str, Any]:
    """What the browser sends of a tab, by names; nothing where it sends something else."""
    try:
        saved = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return saved if isinstance(saved, dict) else {}


def kept_values(saved: Any, name: str, length: int) -> list[Any]:
    """A list of plain values that the browser kept; as many nothings where it kept no such list."""
    values = saved.get(name) if isinstance(saved, dict) else None
    if not isinstance(values, list) or len(values) != length:
        return [None] * length
    return [value if isinstance(value, (str, int, float, bool)) else None for value in values]


def introduce(saved: Any) -> None:
    """Within a handler: this session is that of the visitor whom the browser knows."""
    owner = saved.get("owner") if isinstance(saved, dict) else None
    session = session_of_request()
    if session and isinstance(owner, str) and OWNER.fullmatch(owner):
        _owners[session] = owner


def session_of_request() -> str:
    """The page load or program that asks, within a handler."""
    request = LocalContext.request.get(None)
    return str(getattr(request, "session_hash", None) or "")


def visitor() -> str:
    """Who asks, within a handler: the visitor of a browser, else the session of a program."""
    session = session_of_request()
    return _owners[session] or session


def address() -> str:
    """The network address of who asks, within a handler; empty where it is not known."""
    client = getattr(LocalContext.request.get(None), "client", None)
    return str(getattr(client, "host", "") or "")
