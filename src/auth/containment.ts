/**
 * Sets of topics: whether all that one filter matches is matched by another, and whether two match a topic in common.
 * Exact for valid filters without `$share`, by the matching rules of MQTT 5 section 4.7. Walks over the characters: a filter
 * may have 65,535 levels, and a client may send many.
 */

const SLASH = 0x2f;
const PLUS = 0x2b;
const HASH = 0x23;
const DOLLAR = 0x24;

/** Whether every topic that `filter` matches is also matched by `grant`. */
export function contains(grant: string, filter: string): boolean {
	if (dividedByDollar(grant, filter)) return false;
	let g = 0;
	let f = 0;
	// Each round takes one level of both, and begins at its first character.
	while (true) {
		if (grant.charCodeAt(g) === HASH) return true;
		// `#` alone, and `/#`: what stands before it is no topic, so there is no parent for `+/#` to miss. Everywhere else there is.
		if (filter.charCodeAt(f) === HASH) return f <= 1 && grant.length === g + 3 && grant.endsWith("+/#");
		if (grant.charCodeAt(g) === PLUS) {
			g++;
			f = levelEnd(filter, f);
		} else {
			while (g < grant.length && grant.charCodeAt(g) !== SLASH) {
				if (grant.charCodeAt(g++) !== filter.charCodeAt(f++)) return false;
			}
			if (f !== levelEnd(filter, f)) return false;
		}
		// `a/#` matches its parent `a` too.
		if (f === filter.length) return g === grant.length || (grant.length === g + 2 && grant.endsWith("/#"));
		if (g === grant.length) return false;
		g++;
		f++;
	}
}

/** Whether there is a topic that both filters match. */
export function overlaps(a: string, b: string): boolean {
	if (dividedByDollar(a, b) || dividedByDollar(b, a)) return false;
	let i = 0;
	let j = 0;
	while (true) {
		if (a.charCodeAt(i) === HASH || b.charCodeAt(j) === HASH) return true;
		const aEnd = levelEnd(a, i);
		const bEnd = levelEnd(b, j);
		if (a.charCodeAt(i) !== PLUS && b.charCodeAt(j) !== PLUS && !sameText(a, i, aEnd, b, j, bEnd)) return false;
		if (aEnd === a.length && bEnd === b.length) return true;
		if (aEnd === a.length) return bEnd > 0 && b.length === bEnd + 2 && b.endsWith("/#");
		// The parent that `/#` would match is empty, and so no topic.
		if (bEnd === b.length) return aEnd > 0 && a.length === aEnd + 2 && a.endsWith("/#");
		i = aEnd + 1;
		j = bEnd + 1;
	}
}

/** A wildcard at the beginning does not match a first level that begins with `$` [MQTT-4.7.2-1]. */
function dividedByDollar(wild: string, plain: string): boolean {
	const first = wild.charCodeAt(0);
	return plain.charCodeAt(0) === DOLLAR && (first === PLUS || first === HASH);
}

function levelEnd(filter: string, start: number): number {
	const slash = filter.indexOf("/", start);
	return slash === -1 ? filter.length : slash;
}

function sameText(a: string, aStart: number, aEnd: number, b: string, bStart: number, bEnd: number): boolean {
	if (aEnd - aStart !== bEnd - bStart) return false;
	for (let at = aStart; at < aEnd; at++) {
		if (a.charCodeAt(at) !== b.charCodeAt(at - aStart + bStart)) return false;
	}
	return true;
}
