(function () {
  "use strict";
  var state = document.getElementById("state");
  function say(text, kind) {
    if (state.textContent !== text) state.textContent = text;
    state.className = kind;
  }
  function show(prefix, facts) {
    Object.keys(facts).forEach(function (key) {
      var value = facts[key], name = prefix + key;
      if (Array.isArray(value)) return;
      if (typeof value === "object") return show(name + ".", value);
      var place = document.querySelector('[data-fact="' + CSS.escape(name) + '"]');
      if (place) place.textContent = value;
    });
  }
  function refresh() {
    if (document.hidden) return;
    fetch(location.pathname, {headers: {Accept: "application/json"}, cache: "no-store"}).then(function (answer) {
      if (!answer.ok) throw new Error(answer.status);
      return answer.json();
    }).then(function (facts) {
      show("", facts);
      say("Live, refreshed every 5 seconds", "good");
    }).catch(function () {
      say("No answer; the facts below may be old", "bad");
    });
  }
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, 5000);
  refresh();
})();
