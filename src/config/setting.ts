/** The kinds of settings: how each reads a text and what it accepts. Knows no single setting. */

/** One setting. */
export interface Setting<T> {
	/** Environment variable. */
	readonly variable: string;
	readonly fallback: T;
	readonly unit: string;
	readonly meaning: string;
	/** What a value must be, to follow "expected". */
	readonly expected: string;
	/** Never quoted. */
	readonly secret?: boolean;
	/** The value that a text stands for, or the text itself when it stands for none: `accepts` then refuses it. */
	read(text: string): unknown;
	accepts(value: unknown): boolean;
}

type Range = readonly [min: number, max: number];

const DIGITS = /^\d+$/;

const readInteger = (text: string): unknown => (DIGITS.test(text) ? Number(text) : text);

const within = (value: unknown, [min, max]: Range): boolean => Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max;

/** A whole number within a range. */
export function integer(variable: string, fallback: number, unit: string, range: Range, meaning: string): Setting<number> {
	const expected = `a whole number${unit === "" ? "" : ` of ${unit}`} from ${range[0]} to ${range[1]}`;
	return { variable, fallback, unit, meaning, expected, read: readInteger, accepts: (value) => within(value, range) };
}

/** Yes or no. */
export function flag(variable: string, fallback: boolean, meaning: string): Setting<boolean> {
	const words = new Map<string, boolean>([
		["true", true],
		["1", true],
		["false", false],
		["0", false],
	]);
	return {
		variable,
		fallback,
		unit: "",
		meaning,
		expected: '"true" or "false"',
		read: (text) => words.get(text.toLowerCase()) ?? text,
		accepts: (value) => typeof value === "boolean",
	};
}

/** One of a few words. */
export function choice<const T extends string>(variable: string, options: readonly T[], fallback: NoInfer<T>, meaning: string): Setting<T> {
	return {
		variable,
		fallback,
		unit: options.join("|"),
		meaning,
		expected: `one of ${options.map((option) => `"${option}"`).join(", ")}`,
		read: (text) => options.find((option) => option.toLowerCase() === text.toLowerCase()) ?? text,
		accepts: (value) => options.some((option) => option === value),
	};
}

/** A text of a certain form. */
export function text(variable: string, fallback: string, pattern: RegExp, expected: string, meaning: string): Setting<string> {
	const accepts = (value: unknown): boolean => typeof value === "string" && pattern.test(value);
	return { variable, fallback, unit: "", meaning, expected, read: (value) => value, accepts };
}

/** A listener that is off unless it is given a port. */
export function optionalPort(variable: string, meaning: string): Setting<number | undefined> {
	return {
		variable,
		fallback: undefined,
		unit: "",
		meaning,
		expected: 'a port from 0 (any free one) to 65535, or "off"',
		read: (value) => (value.toLowerCase() === "off" ? undefined : readInteger(value)),
		accepts: (value) => value === undefined || within(value, [0, 65_535]),
	};
}

/** Something that is off unless it is given, and never shown: it may contain a password. */
export function secret(variable: string, pattern: RegExp, expected: string, meaning: string): Setting<string | undefined> {
	return {
		variable,
		fallback: undefined,
		unit: "",
		meaning,
		expected,
		secret: true,
		read: (value) => value,
		accepts: (value) => value === undefined || (typeof value === "string" && pattern.test(value)),
	};
}

export function optionalFile(variable: string, meaning: string): Setting<string | undefined> {
	return {
		variable,
		fallback: undefined,
		unit: "",
		meaning,
		expected: "the path of a file",
		read: (value) => value,
		accepts: (value) => value === undefined || (typeof value === "string" && value !== ""),
	};
}

/** Texts of a certain form, separated by commas. */
export function list(variable: string, pattern: RegExp, expected: string, meaning: string): Setting<readonly string[]> {
	return {
		variable,
		fallback: [],
		unit: "",
		meaning,
		expected: `${expected}, several separated by commas`,
		read: (value) => value.split(",").map((part) => part.trim()),
		accepts: (value) => Array.isArray(value) && value.every((part) => typeof part === "string" && pattern.test(part)),
	};
}

/** A text of a certain form that is off unless it is given. */
export function optionalText(variable: string, pattern: RegExp, expected: string, meaning: string): Setting<string | undefined> {
	return {
		variable,
		fallback: undefined,
		unit: "",
		meaning,
		expected,
		read: (value) => value,
		accepts: (value) => value === undefined || (typeof value === "string" && pattern.test(value)),
	};
}
