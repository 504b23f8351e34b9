/** Keeps a map that anybody can fill within its bound. */

/** Makes room for one more key: the oldest goes when the map is full. */
export function makeRoom<K>(map: Map<K, unknown>, capacity: number): void {
	if (map.size < capacity) return;
	for (const oldest of map.keys()) {
		map.delete(oldest);
		return;
	}
}
