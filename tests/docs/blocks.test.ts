/** Every code block of the documentation does what its page says; `doc_blocks.ts` tells how a block is marked. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Browser } from "../support/browser.ts";
import { suiteCleanup } from "../support/server_process.ts";
import { blocksOf, pages } from "./doc_blocks.ts";
import { DocPage } from "./doc_page.ts";

describe("documentation", () => {
	const suite = suiteCleanup();
	let browser: Promise<Browser> | undefined;
	const startBrowser = (): Promise<Browser> => {
		browser ??= Browser.start(suite);
		return browser;
	};

	for (const page of pages()) {
		it(`${page}: every block does what the page says`, { timeout: 60_000 }, async (t) => {
			await new DocPage(t, startBrowser).go(blocksOf(page));
		});
	}

	it("a block without a known word behind its fence is refused", () => {
		assert.throws(() => blocksOf("page.md", "```\nnpm start\n```\n"), /page\.md:1: "" says nothing about this block/);
		assert.throws(() => blocksOf("page.md", "text\n\n```sh\nnpm start\n```\n"), /page\.md:3: "sh" says nothing/);
	});

	it("a block that does something else than its page says is found", async (t) => {
		const page = (markdown: string) => new DocPage(t, startBrowser).go(blocksOf("page.md", markdown));
		await assert.rejects(page("```env\nPROT=1\n```\n"), /page\.md:1: .*begins with a setting/);
		await assert.rejects(page("```env\nPORT=many\n```\n"), /PORT is "many"/);
		await assert.rejects(page("```sh names\nnpm run nothing\n```\n"), /"npm run nothing" is a script/);
		await assert.rejects(page("```sh names\nnode_modules/.bin/bun examples/nothing.ts\n```\n"), /examples\/nothing\.ts exists/);
		await assert.rejects(page("```js run\nprocess.exit(3)\n```\n"), /ends with 3/);
		await assert.rejects(page('```js run\nconsole.log("a")\n```\n```text output\nb\n```\n'), /page\.md:4: it says "b"/);
		await assert.rejects(page("```yaml acl\nrules: []\n```\n"), /there is no rule/);
	});
});
