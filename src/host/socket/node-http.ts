/**
 * Node's HTTP, loaded without `import`, which would read every name of the module. Reading the name WebSocket loads
 * Node's own client of WebSocket and fetch: 17 MB of memory, and as much time as the start of Node itself.
 */
export const { createServer, request } = process.getBuiltinModule('node:http');
