/** The shell's codes for a command that is missing or not executable; otherwise containerd's code for a start error. */
export function startErrorCode(message: string): number {
  if (/not found|no such file/i.test(message)) return 127;
  if (/permission denied|exec format error|not executable|not a regular file/i.test(message)) return 126;
  return 128;
}

/** What to do about a command that is missing or not executable; undefined for another code. */
export function startErrorFix(exitCode: number | undefined): string | undefined {
  if (exitCode === 127)
    return 'Name a program of the image, by its path if need be, or run it by a shell: sh -c "...".';
  if (exitCode === 126) return 'Name a program that the container may execute, made for its processor.';
  return undefined;
}
