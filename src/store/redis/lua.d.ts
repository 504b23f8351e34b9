/** Lua scripts are imported as text, `with { type: "text" }`, which both runtimes do by themselves. */
declare module "*.lua" {
	const text: string;
	// biome-ignore lint/style/noDefaultExport: a module that is a text has nothing else.
	export default text;
}
