import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { compareTitles, readBunReport, readDenoReport } from "../scripts/report.mjs";

const BUN = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="4">
  <testsuite name="tests/a.test.ts" file="tests/a.test.ts">
    <testsuite name="outer &lt;x&gt;" line="4">
      <testsuite name="inner" line="9">
        <testcase name="passes &amp; &quot;well&quot;" classname="inner &gt; outer" time="0.1" />
        <testcase name="fails" classname="inner"><failure type="AssertionError" message="1 !== 2&#10;">at &lt;here&gt;</failure></testcase>
        <testcase name="todo"><skipped message="TODO" /></testcase>
      </testsuite>
    </testsuite>
    <testsuite name="empty" />
    <testcase name="top"></testcase>
  </testsuite>
</testsuites>`;

const DENO = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="8">
    <testsuite name="./tests/a.test.ts">
        <testcase name="outer &lt;x&gt;"><failure message="1 test step failed">1 test step failed.</failure></testcase>
        <testcase name="top">
        </testcase>
        <testcase name="hooks"><failure message="Uncaught Error: in after">Error</failure></testcase>
        <testcase name="hooks &gt; fine"></testcase>
    </testsuite>
    <testsuite name="ext:deno_node/testing.ts">
        <testcase name="outer &lt;x&gt; &gt; inner"><failure message="2 test steps failed">2 test steps failed.</failure></testcase>
        <testcase name="outer &lt;x&gt; &gt; inner &gt; passes &amp; &quot;well&quot;"></testcase>
        <testcase name="outer &lt;x&gt; &gt; inner &gt; fails"><failure message="Uncaught AssertionError: 1 !== 2
">AssertionError</failure></testcase>
        <testcase name="outer &lt;x&gt; &gt; inner &gt; todo"><skipped/></testcase>
    </testsuite>
</testsuites>`;

const INNER = [
	{ title: 'outer <x> > inner > passes & "well"', outcome: "passed" },
	{ title: "outer <x> > inner > fails", outcome: "failed" },
	{ title: "outer <x> > inner > todo", outcome: "skipped" },
];

describe("readBunReport", () => {
	it("titles have the names of the suites, outcomes are told apart", () => {
		assert.deepEqual(readBunReport(BUN), [...INNER, { title: "top", outcome: "passed" }]);
	});

	it("a report that broke off gives what it has", () => {
		assert.equal(readBunReport(BUN.slice(0, BUN.indexOf("<skipped"))).length, 3);
		assert.deepEqual(readBunReport(""), []);
	});
});

describe("readDenoReport", () => {
	it("groups do not count, unless they failed by themselves", () => {
		assert.deepEqual(readDenoReport(DENO), [
			{ title: "top", outcome: "passed" },
			{ title: "hooks", outcome: "failed" },
			{ title: "hooks > fine", outcome: "passed" },
			...INNER,
		]);
	});
});

describe("compareTitles", () => {
	it("a test that one runtime did not run is found", () => {
		assert.deepEqual(compareTitles(["a", "s > b"], ["a"]), { onlyBun: ["s > b"], onlyDeno: [] });
		assert.deepEqual(compareTitles(["a"], ["a", "s > b"]), { onlyBun: [], onlyDeno: ["s > b"] });
	});

	it("subtests, which Bun does not list, and the name of the runtime make no difference", () => {
		assert.deepEqual(compareTitles(["a", "Bun socket: x"], ["a > one", "a > two", "Deno socket: x"]), { onlyBun: [], onlyDeno: [] });
	});
});
