/**
 * The code blocks of the documentation, as their authors mark them: the words behind the fence say what is done with a block
 * when the documentation is tested. Knows Markdown's fences and these words, and runs nothing.
 *
 * | words                             | what the test does                                                                       |
 * | --------------------------------- | ---------------------------------------------------------------------------------------- |
 * | `env`                             | every line is a setting with a value that it takes, and together they are valid          |
 * | `env start`                       | starts a broker with them, for the blocks that follow; the one before it ends            |
 * | `env add`                         | starts one more beside it                                                                |
 * | `sh run`                          | runs in bash from the top of the repository and must succeed                             |
 * | `sh names`                        | not run, since it installs, clones or never ends: its commands and files must exist      |
 * | `js run`, `ts run`                | runs on the runtime of the test and must end with 0                                      |
 * | `js start`                        | runs until the page is through; what follows waits for its first line                    |
 * | `html run`                        | opens in Chromium                                                                        |
 * | `text output`                     | what the block before has said: these lines in this order, `…` for anything              |
 * | `yaml acl`                        | is a rule file                                                                           |
 * | `json claims`                     | claims of a token, whose rights can be read                                              |
 * | `json`                            | is JSON                                                                                  |
 * | `text`, `mermaid`, `promql`       | not run: a form, a picture                                                               |
 *
 * Behind these words `file=NAME` keeps the text under that name for the blocks that follow. A page without `env start` has a
 * broker with its defaults from its first block on. Ports and files are replaced by free ones: see `doc_page.ts`.
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root: string = fileURLToPath(new URL("../..", import.meta.url));

/** What is done with a block. */
const KINDS = [
	"env",
	"env start",
	"env add",
	"sh run",
	"sh names",
	"js run",
	"ts run",
	"js start",
	"html run",
	"text output",
	"yaml acl",
	"json claims",
	"json",
	"text",
	"mermaid",
	"promql",
] as const;
export type Kind = (typeof KINDS)[number];

export interface Block {
	/** Path of the page from the top of the repository, and the line of the fence. */
	readonly place: string;
	readonly kind: Kind;
	/** Name under which the text is kept. */
	readonly file: string | undefined;
	readonly text: string;
}

/** Pages whose blocks are others' business: figures and how to measure them, and the picture of the sources. */
const OTHERS = ["docs/performance.md", "docs/architecture.md"];

const FENCE = /^```(.*)\n([\s\S]*?)^```$/gm;

/** The pages of the documentation. */
export function pages(): string[] {
	const inDocs = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));
	return ["README.md", ...inDocs.map((name) => `docs/${name}`).sort()].filter((page) => !OTHERS.includes(page));
}

export function readPage(page: string): string {
	return readFileSync(join(root, page), "utf8");
}

/** The blocks of a page. Throws for words that mean nothing. */
export function blocksOf(page: string, markdown: string = readPage(page)): Block[] {
	return [...markdown.matchAll(FENCE)].map(({ 1: info = "", 2: text = "", index }) => {
		const place = `${page}:${markdown.slice(0, index).split("\n").length}`;
		const words = info.trim().split(/\s+/);
		const files = words.filter((word) => word.startsWith("file="));
		const kind = words.filter((word) => !files.includes(word)).join(" ");
		if (!isKind(kind) || files.length > 1) throw new Error(`${place}: "${info}" says nothing about this block; see doc_blocks.ts`);
		return { place, kind, file: files[0]?.slice("file=".length), text };
	});
}

function isKind(words: string): words is Kind {
	return KINDS.some((kind) => kind === words);
}
