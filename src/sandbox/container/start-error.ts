/** The shell's codes for a command that is missing or not executable; otherwise containerd's code for a start error. */
export function startErrorCode(message: string): number {
  if (/not found|no such file/i.test(message)) return 127;
  if (/permission denied|exec format error|not executable|not a regular file/i.test(message)) return 126;
  return 128;
}
