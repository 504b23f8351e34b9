/** Lua scripts are imported as text, `with { type: "text" }`, which both runtimes do by themselves. */
declare module "*.lua" {
	const text: string;
	export default text;
}
