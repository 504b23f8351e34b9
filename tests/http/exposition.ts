/** A strict reader of Prometheus' text format 0.0.4 with the rules of its naming guide: throws where a line breaks one. */

interface Sample {
	readonly name: string;
	readonly labels: Readonly<Record<string, string>>;
	readonly value: number;
}

export interface Family {
	readonly name: string;
	readonly type: string;
	readonly help: string;
	readonly samples: Sample[];
}

const NAME = /^[a-z][a-z0-9]*(?:_[a-z0-9]+)*$/;
const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/y;
const NUMBER = /^(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]Inf|NaN)$/i;
/** Scales other than those of the guide, which are seconds, bytes and ratios. */
const FOREIGN_UNITS = /_(?:ms|milliseconds|microseconds|minutes|hours|days|kilobytes|kb|mb|megabytes|bits|percent)(?:_|$)/;

/** Reads a page into its families, in their order. */
export function readExposition(text: string): readonly Family[] {
	if (!text.endsWith("\n")) throw new Error("the last line does not end");
	const families: Family[] = [];
	const seen = new Set<string>();
	let help: { name: string; text: string } | undefined;
	for (const line of text.slice(0, -1).split("\n")) {
		const [, kind, name = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
		if (kind === "HELP") help = { name, text: rest };
		else if (kind === "TYPE") {
			if (help?.name !== name) throw new Error(`${name} has no help before its type`);
			if (families.some((family) => family.name === name)) throw new Error(`${name} comes twice`);
			families.push({ name, type: rest, help: help.text, samples: [] });
		} else {
			const sample = readSample(line);
			const family = families.at(-1);
			if (!family || baseName(sample.name, family.type) !== family.name) throw new Error(`no type right before "${line}"`);
			const series = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).sort())}`;
			if (seen.has(series)) throw new Error(`"${line}" comes twice`);
			seen.add(series);
			family.samples.push(sample);
		}
	}
	for (const family of families) checkFamily(family);
	return families;
}

function readSample(line: string): Sample {
	const [, name = "", pairs = "", value = ""] = SAMPLE.exec(line) ?? [];
	if (name === "" || !NUMBER.test(value)) throw new Error(`"${line}" is no sample`);
	const labels: Record<string, string> = {};
	let at = 0;
	while (at < pairs.length) {
		LABEL.lastIndex = at;
		const [whole, label, text] = LABEL.exec(pairs) ?? [];
		if (whole === undefined || label === undefined || text === undefined) throw new Error(`"${line}" has labels that are none`);
		if (label in labels || label.startsWith("__") || !NAME.test(label)) throw new Error(`"${line}" has the label ${label}`);
		labels[label] = text.replace(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));
		at += whole.length;
	}
	return { name, labels, value: Number(value.replace("Inf", "Infinity")) };
}

function baseName(name: string, type: string): string {
	return type === "histogram" ? name.replace(/_(?:bucket|sum|count)$/, "") : name;
}

function checkFamily({ name, type, help, samples }: Family): void {
	const complain = (problem: string): never => {
		throw new Error(`${name} ${problem}`);
	};
	if (!NAME.test(name)) complain("is not in snake case");
	if (!/^[A-Z].*\.$/.test(help)) complain("has a help that is no sentence");
	if (FOREIGN_UNITS.test(name)) complain("has a unit that is none of the base units");
	if (/(?:counter|gauge|histogram|metric)/.test(name)) complain("has its type in its name");
	if (samples.length === 0) complain("has no sample");
	if (type === "counter") {
		if (!name.endsWith("_total")) complain("is a counter that does not end in _total");
		if (samples.some(({ value }) => !(value >= 0))) complain("is a counter below 0");
	} else if (type === "gauge") {
		if (/_(?:total|sum|count|bucket)$/.test(name)) complain("is a gauge with the name of something else");
	} else if (type === "histogram") checkHistogram(name, samples, complain);
	else complain(`has the type ${type}`);
	const labels = new Set(samples.filter((sample) => !sample.name.endsWith("_bucket")).map((sample) => Object.keys(sample.labels).join()));
	if (labels.size > 1) complain("has different labels in its samples");
}

function checkHistogram(name: string, samples: readonly Sample[], complain: (problem: string) => never): void {
	if (!name.endsWith("_seconds")) complain("is a histogram without a unit");
	const buckets = samples.filter((sample) => sample.name === `${name}_bucket`);
	const bounds = buckets.map(({ labels }) => Number(labels.le?.replace("+Inf", "Infinity")));
	if (bounds.at(-1) !== Number.POSITIVE_INFINITY) complain("has no last bucket");
	if (bounds.some((bound, index) => index > 0 && bound <= (bounds[index - 1] as number))) complain("has bounds that do not grow");
	if (buckets.some(({ value }, index) => index > 0 && value < (buckets[index - 1]?.value as number))) complain("has buckets that shrink");
	const count = samples.find((sample) => sample.name === `${name}_count`)?.value;
	if (count === undefined || count !== buckets.at(-1)?.value) complain("has a count that is not its last bucket");
	if (samples.filter((sample) => sample.name === `${name}_sum`).length !== 1) complain("has no sum");
}
