// Runs before the first paint, so that the page does not flash in the other colours.
try {
  const theme = localStorage.getItem("hermes.theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Storage is off: the system's colours.
}
