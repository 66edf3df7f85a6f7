import { failureCode } from '../exit-codes.ts';
import { type Terminal, errorText, write } from '../terminal/terminal.ts';

/** Calls `act` for each name in turn. Prints a failure and continues with the next one. Returns the exit code. */
export async function forEachName(
  names: readonly string[],
  { stderr }: Terminal,
  act: (name: string) => Promise<void>,
): Promise<number> {
  let code = 0;
  for (const name of names) {
    await act(name).catch(async (error: unknown) => {
      code = failureCode;
      await write(stderr, errorText(error));
    });
  }
  return code;
}
