// Markdown as models write it, made into elements: paragraphs, headings, lists, bold, italic, code and links. Tables
// and quotes stay as they are written.
// What a model wrote becomes text nodes and never markup, so none of it can run.

const FENCE = /^ {0,3}(`{3,}(?!.*`)|~{3,})[ \t]*([\w+#.-]*)/; // with a backtick after it, it is code in a line
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])[ \t]+(.*)$/;
const DEEPEST = 6; // of lists in lists: a line may begin with thousands of dashes

const INLINE = new RegExp(
  [
    "(?<ticks>`{1,3})(?<code>[^`](?:.{0,2000}?[^`])?)\\k<ticks>(?!`)",
    "\\*\\*(?<bold>[^\\s*](?:.{0,1000}?\\S)?)\\*\\*",
    "(?<![\\w*])\\*(?<starred>[^\\s*](?:[^*]{0,400}[^\\s*])?)\\*(?![\\w*])",
    "(?<!\\w)_(?<underlined>[^\\s_](?:[^_]{0,400}[^\\s_])?)_(?!\\w)",
    "\\[(?<label>[^\\[\\]]{1,400})\\]\\((?<href>[^\\s()]{1,2000})\\)",
    "(?<bare>https?://[^\\s<>\"'`)\\]]{0,2000}[^\\s<>\"'`)\\].,:;!?])",
  ].join("|"),
  "g",
);

export function render(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(...blocks(text.split("\n"), 0));
  return fragment;
}

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function blocks(lines, depth) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const heading = HEADING.exec(line);
    if (!line.trim()) {
      at += 1;
    } else if (FENCE.test(line)) {
      at = addCode(found, lines, at);
    } else if (heading) {
      found.push(element(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2])));
      at += 1;
    } else if (depth < DEEPEST && ITEM.test(line)) {
      at = addList(found, lines, at, depth);
    } else {
      at = addParagraph(found, lines, at, depth);
    }
  }
  return found;
}

function addCode(found, lines, at) {
  const [, fence, language] = FENCE.exec(lines[at]);
  const ends = (line) => line.trim().startsWith(fence) && !line.trim().replaceAll(fence[0], "");
  let end = at + 1;
  while (end < lines.length && !ends(lines[end])) end += 1; // to the end while it is still being written
  const code = element("code", {}, lines.slice(at + 1, end).join("\n"));
  const copy = element("button", { type: "button", className: "copy-code" }, "Copy");
  const head = element("figcaption", {}, element("span", {}, language || "code"), copy);
  found.push(element("figure", { className: "code" }, head, element("pre", { tabIndex: 0 }, code)));
  return end + 1;
}

function addList(found, lines, at, depth) {
  const [, indent, marker] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(marker);
  const list = element(ordered ? "ol" : "ul");
  if (ordered) list.start = Number.parseInt(marker, 10);
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || item[1].length > indent.length + 1 || /\d/.test(item[2]) !== ordered) break;
    const inside = [item[3]];
    const margin = new RegExp(`^ {0,${item[1].length + item[2].length + 1}}`);
    at += 1;
    // What is indented further belongs to the item; a blank line too, if more of it or of the list follows.
    while (at < lines.length && belongs(lines, at, indent.length)) {
      inside.push(lines[at].replace(margin, ""));
      at += 1;
    }
    const [first, ...more] = blocks(inside, depth + 1);
    list.append(element("li", {}, ...(first ? unwrapped(first) : []), ...more));
  }
  found.push(list);
  return at;
}

function belongs(lines, at, indent) {
  const next = lines[at].trim() ? lines[at] : (lines[at + 1] ?? "");
  if (!lines[at].trim() && ITEM.exec(next)) return true;
  return next.trim() !== "" && next.length - next.trimStart().length > indent + 1;
}

// A paragraph in an item without its own margins.
function unwrapped(block) {
  return block.tagName === "P" ? [...block.childNodes] : [block];
}

function addParagraph(found, lines, at, depth) {
  const paragraph = element("p");
  const begin = at;
  while (at < lines.length && lines[at].trim() && (at === begin || !beginsBlock(lines[at], depth))) {
    if (at > begin) paragraph.append(element("br"));
    paragraph.append(...inline(lines[at].trim()));
    at += 1;
  }
  found.push(paragraph);
  return at;
}

function beginsBlock(line, depth) {
  return FENCE.test(line) || HEADING.test(line) || (depth < DEEPEST && ITEM.test(line));
}

function inline(text, depth = 0) {
  const found = [];
  let from = 0;
  for (const match of depth < DEEPEST ? text.matchAll(INLINE) : []) {
    if (match.index > from) found.push(text.slice(from, match.index));
    found.push(marked(match, depth));
    from = match.index + match[0].length;
  }
  if (from < text.length) found.push(text.slice(from));
  return found;
}

function marked(match, depth) {
  const { code, bold, starred, underlined, label, href, bare } = match.groups;
  if (code !== undefined) return element("code", {}, code);
  if (bold !== undefined) return element("strong", {}, ...inline(bold, depth + 1));
  if (label !== undefined) return link(href, inline(label, depth + 1)) ?? match[0];
  if (bare !== undefined) return link(bare, [bare]) ?? match[0];
  return element("em", {}, ...inline(starred ?? underlined, depth + 1));
}

// null for an address that does not lead to a web page, such as javascript:
function link(href, children) {
  const url = URL.canParse(href) ? new URL(href) : null;
  if (!url || !["http:", "https:"].includes(url.protocol)) return null;
  return element("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}
