import '../globals.ts';
import { callsScenarios } from './calls.ts';
import { loopScenarios } from './loop.ts';
import { processesScenarios } from './processes.ts';
import { engine, type Scenario } from './support.ts';

/**
 * A program for tests: `scenarios NAME DIRECTORY` runs one scenario on the real engine and writes its result, as JSON,
 * to descriptor 1.
 */
const scenarios: Record<string, Scenario> = { ...callsScenarios, ...loopScenarios, ...processesScenarios };

async function run(): Promise<void> {
  const [name = '', directory = ''] = engine.args.slice(1);
  const scenario = scenarios[name];
  const seen: unknown = scenario === undefined ? { unknown: name } : await scenario(directory);
  engine.write(1, engine.encodeUtf8(JSON.stringify(seen ?? null)));
  engine.exit(0);
}

run().catch((error: unknown) => {
  engine.print(`scenario failed: ${error instanceof Error ? `${error.message} ${error.stack ?? ''}` : String(error)}`);
  engine.exit(1);
});
