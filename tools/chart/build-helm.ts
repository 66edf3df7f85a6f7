import { buildProgram, type GoModule } from '../../test/conformance/go-module.ts';

const module: GoModule = {
  path: 'helm.sh/helm/v4',
  version: 'v4.3.1',
  sum: 'h1:UndCoLe9UPmNoL7IvWzaUXveL7T5t/ijoorEmgJdI9g=',
};

/** Builds Helm, unless the directory `cache` has it. Returns the path of the program. */
export async function buildHelm(cache: string, signal: AbortSignal): Promise<string> {
  return await buildProgram(cache, 'helm', module, signal);
}
