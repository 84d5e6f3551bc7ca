// Opens a page in Chromium as people would: in light and dark, wide and on a telephone. Prints one JSON object that says what
// was requested, complained of, and shown, and what axe-core objects to.
//
// node browser.mjs '{"file": PATH, "now": RFC 3339, "pictures": FOLDER or null}'
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

// The packages lie beside the programs on PATH; an import would look beside this file alone.
const folders = process.env.PATH.split(path.delimiter).filter((folder) => path.basename(folder) === ".bin");
const paths = folders.map((folder) => path.resolve(folder, "../.."));
const require = createRequire(import.meta.url);
const load = (name) => require(require.resolve(name, { paths }));
const puppeteer = load("puppeteer-core");
const axe = load("axe-core").source;

const { file, now, pictures } = JSON.parse(process.argv[2]);
const url = pathToFileURL(file).href;
const seen = { views: [], requests: [], complaints: [] };

const browser = await puppeteer.launch({
  executablePath: "/usr/bin/chromium",
  // A sandbox needs another user than root, and more of the kernel than a container has.
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"],
});

async function open(theme, width) {
  const page = await browser.newPage();
  page.on("request", (request) => {
    if (request.url() !== url && !request.url().startsWith("data:")) seen.requests.push(request.url());
  });
  page.on("console", (message) => seen.complaints.push(message.text()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  page.on("dialog", (dialog) => dialog.dismiss().then(() => seen.complaints.push("a dialog")));
  await page.evaluateOnNewDocument((now) => (Date.now = () => Date.parse(now)), now);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
  await page.setViewport({ width, height: 850 });
  return page;
}

const text = (page) => page.evaluate(() => document.body.innerText);
// How many pixels are beyond the right edge.
const beyond = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

async function look(theme, width) {
  const page = await open(theme, width);
  await page.goto(url, { waitUntil: "load" });
  if (pictures) await page.screenshot({ path: path.join(pictures, `${theme}-${width}.png`) });
  const folded = { text: await text(page), beyond: await beyond(page) };
  // What is folded is looked at too.
  await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const objections = violations.flatMap((rule) =>
    rule.nodes.map((node) => `${rule.id}: ${node.target.join(" ")}: ${node.failureSummary}`),
  );
  const shown = await page.evaluate(() => ({
    title: document.title,
    background: getComputedStyle(document.body).backgroundColor,
    elements: Object.fromEntries(["h1", "script", "style", "img"].map((name) => [name, document.querySelectorAll(name).length])),
  }));
  const unfolded = { text: await text(page), beyond: await beyond(page) };
  seen.views.push({ theme, width, ...shown, folded, unfolded, objections });
  await page.close();
}

try {
  for (const theme of ["light", "dark"]) for (const width of [360, 1280]) await look(theme, width);
  const page = await open("light", 1280);
  await page.setJavaScriptEnabled(false);
  await page.goto(url, { waitUntil: "load" });
  seen.without_script = await text(page);
  await page.setJavaScriptEnabled(true);
  await page.reload({ waitUntil: "load" });
  const button = await page.$("[data-copy]");
  if (button) {
    seen.copy = await button.evaluate((button) => button.dataset.copy);
    await button.click();
    await page.waitForFunction(() => document.querySelector("[role=status]").textContent, { polling: 50, timeout: 60000 });
    await page.evaluate(() => document.body.appendChild(document.createElement("textarea")).focus());
    await page.keyboard.down("Control");
    await page.keyboard.press("v");
    seen.copied = await page.evaluate(() => document.querySelector("textarea").value);
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
