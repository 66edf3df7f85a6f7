import type { PodDescription } from '#api/description.ts';
import { timeText } from './format.ts';

type Step = NonNullable<PodDescription['machine']>['timeline'][number];

/** Steps of a start in the order in which they began. Many run side by side, so their times do not add up. */
export function Timeline({ steps }: { readonly steps: readonly Step[] }) {
  const whole = Math.max(1, ...steps.map(({ ms, startMs = 0 }) => startMs + ms));
  const percent = (ms: number) => `${((100 * ms) / whole).toFixed(2)}%`;
  const lastOf = ({ name, startMs = 0 }: Step) => (name === 'total' ? whole : startMs);
  const inOrder = steps.toSorted((one, other) => lastOf(one) - lastOf(other) || one.ms - other.ms);
  return (
    <table class="timeline">
      <thead>
        <tr>
          <th scope="col">Step</th>
          <th scope="col" class="number mid">
            Began
          </th>
          <th scope="col" class="number">
            Took
          </th>
          <th scope="col" class="number mid">
            Median
          </th>
          <th scope="col" class="grow mid">
            <span class="hidden">As a bar</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {inOrder.map(({ name, ms, startMs, medianMs, isSlow }) => (
          <tr key={name} class={isSlow ? 'slow' : name === 'total' ? 'total' : ''}>
            <th scope="row">
              {name}
              {isSlow ? <span class="hidden"> (slow)</span> : null}
            </th>
            <td class="number faint mid">{startMs === undefined ? '–' : timeText(startMs)}</td>
            <td class="number took">{timeText(ms)}</td>
            <td class="number faint mid">{medianMs === undefined ? '–' : timeText(medianMs)}</td>
            <td class="mid" aria-hidden="true">
              <div class="bars">
                <span class="bar" style={{ marginLeft: percent(startMs ?? 0), width: percent(ms) }} />
              </div>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
