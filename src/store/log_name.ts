/** What the name of a log says of it. Names are filters, see `store.ts`; knows nothing of what is in a log. */

/** The log of a share group: its name is the whole `$share/{name}/{filter}`. */
export function isShared(log: string): boolean {
	return log.startsWith("$share/");
}

/** The log of a filter that matches one topic only, the one of the same name. */
export function isExact(log: string): boolean {
	return !log.includes("+") && !log.endsWith("#") && !isShared(log);
}
