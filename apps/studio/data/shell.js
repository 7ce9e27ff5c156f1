// The shell: words are put into its places as they come; it goes when the page with its controls shows the same.
(() => {
  const shell = document.getElementById("zq-shell");
  const root = document.documentElement;
  if (matchMedia("(prefers-color-scheme: dark)").matches) document.body.classList.add("dark");
  root.classList.add("zq-opening");
  const said = {};
  window.zqFill = (places) => {
    Object.assign(said, places);
    for (const [name, html] of Object.entries(places)) {
      const place = shell.querySelector(`[data-place=${name}]`);
      if (place) place.innerHTML = html;
    }
  };
  // What was said already stands in the framework's page from its beginning.
  window.zqHandOver = (isWhole) => {
    window.zqIsWhole = isWhole;
    for (const { props } of window.gradio_config.components) {
      const name = props.elem_id?.startsWith("zq-") ? props.elem_id.slice(3) : "";
      if (!Object.hasOwn(said, name)) continue;
      props.value = said[name];
      props.visible = true;
    }
    if (Object.hasOwn(said, "stage"))
      window.gradio_config.components.find(({ props }) => props.elem_id === "zq-picture-place").props.visible = false;
  };
  const watch = setInterval(() => {
    if (!document.getElementById("zq-assess")) return;
    const isSame = document.querySelector("#zq-reasoning :is(.zq-looks, .zq-settled)");
    if (!isSame) return;
    clearInterval(watch);
    root.classList.remove("zq-opening");
    shell.remove();
  }, 30);
})();
