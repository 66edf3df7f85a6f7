import { annotationsPage } from './annotations.ts';
import { cliPage } from './cli.ts';
import { errorsPage } from './errors.ts';
import { killTablePage } from './kill-table.ts';
import { metricsPage } from './metrics.ts';
import { settingsPage } from './settings.ts';
import { startPage } from './start.ts';
import { statesPage } from './states.ts';

/** The reference: what each file of `docs/reference/` says, printed from the tables that the code runs by. */
export const referencePages = {
  'annotations.md': annotationsPage,
  'cli.md': cliPage,
  'errors.md': errorsPage,
  'kill-table.md': killTablePage,
  'metrics.md': metricsPage,
  'settings.md': settingsPage,
  'start.md': startPage,
  'states.md': statesPage,
} as const satisfies Record<string, () => Promise<string>>;
