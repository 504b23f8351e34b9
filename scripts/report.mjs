/**
 * Reads the JUnit reports of `bun test` and `deno test` and makes one thing of them: titles of tests with their outcome.
 * Knows how the two differ; runs nothing.
 */

/**
 * @typedef {"passed" | "failed" | "skipped"} Outcome
 * @typedef {{ title: string, outcome: Outcome }} TestCase
 */

const ELEMENT = /<(\/?)(testsuites|testsuite|testcase|failure|error|skipped)\b([^>]*?)(\/?)>/g;
const ATTRIBUTE = /([\w-]+)="([^"]*)"/g;
const ENTITIES = new Map([
	["lt", "<"],
	["gt", ">"],
	["amp", "&"],
	["quot", '"'],
	["apos", "'"],
]);
const SEPARATOR = " > ";

/**
 * Bun nests a `testsuite` for the file and one for each `describe`; subtests made by `t.test` are part of their test.
 * @param {string} xml
 * @returns {TestCase[]}
 */
export function readBunReport(xml) {
	return readCases(xml).map(({ suites, name, outcome }) => ({ title: [...suites.slice(1), name].join(SEPARATOR), outcome }));
}

/**
 * Deno lists `describe` and tests with subtests as cases of their own, beside what is in them. A group counts only when it
 * has nothing in it, or failed by itself, as in a hook.
 * @param {string} xml
 * @returns {TestCase[]}
 */
export function readDenoReport(xml) {
	const cases = readCases(xml);
	const groups = new Set(cases.flatMap(({ name }) => ancestors(name)));
	return cases
		.filter(({ name, outcome, message }) => !groups.has(name) || (outcome === "failed" && !/^\d+ test steps? failed$/.test(message)))
		.map(({ name, outcome }) => ({ title: name, outcome }));
}

/**
 * Titles that only one of the two runtimes ran. Subtests count as their test, because Bun does not list them.
 * @param {readonly string[]} bun
 * @param {readonly string[]} deno
 * @returns {{ onlyBun: string[], onlyDeno: string[] }}
 */
export function compareTitles(bun, deno) {
	const onBun = new Set(bun.map(neutral));
	const onDeno = new Set(deno.map(neutral).flatMap((title) => [title, ...ancestors(title)]));
	return {
		onlyBun: bun.filter((title) => !onDeno.has(neutral(title))),
		onlyDeno: deno.filter((title) => ![neutral(title), ...ancestors(neutral(title))].some((name) => onBun.has(name))),
	};
}

/** One suite may bear the name of the runtime that it runs on. @param {string} title */
const neutral = (title) => title.replace(/\b(bun|deno)\b/gi, "runtime");

/** @param {string} title */
function ancestors(title) {
	const parts = title.split(SEPARATOR);
	return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join(SEPARATOR));
}

/**
 * @param {string} xml
 * @returns {{ suites: string[], name: string, outcome: Outcome, message: string }[]}
 */
function readCases(xml) {
	const cases = [];
	const suites = [];
	/** @type {{ suites: string[], name: string, outcome: Outcome, message: string } | undefined} */
	let current;
	for (const [, closing, element, attributes, selfClosing] of xml.matchAll(ELEMENT)) {
		const named = new Map([...(attributes ?? "").matchAll(ATTRIBUTE)].map(([, name, value]) => [name, plainText(value ?? "")]));
		if (element === "testsuite") {
			if (closing) suites.pop();
			else if (!selfClosing) suites.push(named.get("name") ?? "");
		} else if (element === "testcase" && !closing) {
			current = { suites: [...suites], name: named.get("name") ?? "", outcome: "passed", message: "" };
			cases.push(current);
		} else if (current && !closing && (element === "failure" || element === "error")) {
			current.outcome = "failed";
			current.message = named.get("message") ?? "";
		} else if (current && !closing && element === "skipped") {
			current.outcome = "skipped";
		}
	}
	return cases;
}

/** @param {string} text */
function plainText(text) {
	return text.replace(/&(#x?[\da-f]+|\w+);/gi, (whole, entity) => {
		if (!entity.startsWith("#")) return ENTITIES.get(entity) ?? whole;
		return String.fromCodePoint(entity[1] === "x" ? Number.parseInt(entity.slice(2), 16) : Number.parseInt(entity.slice(1), 10));
	});
}
