import { EventEmitter } from 'node:events';
import type { WebSocket } from 'ws';

/** A client's end. Input is emitted, and waits while the socket is paused. */
export class FakeSocket extends EventEmitter {
  readonly OPEN = 1;
  readyState = 1;
  isPaused = false;
  pause() {
    this.isPaused = true;
  }
  resume() {
    this.isPaused = false;
    this.emit('resumed');
  }
  readonly sent: Buffer[] = [];
  send(data: Uint8Array, done: () => void) {
    this.sent.push(Buffer.from(data));
    done();
  }
  close() {
    this.readyState = 3;
    this.emit('close');
  }
  asClient(): WebSocket {
    return this as unknown as WebSocket; // SAFE: as much of one as a session uses
  }
}
