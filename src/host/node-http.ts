/**
 * Node's HTTP, loaded without import, which reads every name that the module has. One of them, WebSocket, then loads Node's
 * own client of WebSocket and fetch: 17 MB of a process, and as much time as the start of Node itself.
 */
export const { createServer, request } = process.getBuiltinModule('node:http');
