/** Process of the daemon; replaced in tests. */
export interface DaemonProcess extends NodeJS.EventEmitter {
  readonly stderr: { write(text: string): unknown };
  readonly env: NodeJS.ProcessEnv;
}
