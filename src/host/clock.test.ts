import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from './clock.ts';
import { describeClock } from './testing/clock.conformance.ts';

describeClock('of the system', () => ({
  clock: systemClock,
  async pass(ms) {
    const until = systemClock.monotonicMs() + ms;
    while (systemClock.monotonicMs() < until) await sleep(1);
    await sleep(5); // ends after the actions due by then
    await sleep(5); // ends after those that they have set, however long the host lets this process wait
  },
}));
