import { useEffect, useRef } from 'preact/hooks';
import UPlot from 'uplot';

export interface Line {
  readonly name: string;
  /** Custom property of the style sheet. */
  readonly colour: string;
  readonly values: readonly (number | undefined)[];
}

interface PlotProps {
  readonly title: string;
  readonly format: (value: number) => string;
  /** The values are bytes: the axis has powers of two. */
  readonly isBytes?: boolean;
  /** In seconds since 1970. */
  readonly times: readonly number[];
  readonly lines: readonly Line[];
  /** Fills the area between the first two lines: the overhead. */
  readonly fillsBetween?: boolean;
}

const height = 132;
/** Length of the time axis at first. */
const leastSeconds = 60;
const powersOfTwo = Array.from({ length: 50 }, (_, at) => 2 ** at);

/** A live plot over time. Its figures are beside it as text, so it is one picture to a screen reader. */
export function Plot({ title, format, times, lines, isBytes = false, fillsBetween = false }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<UPlot>(undefined);
  const latest = useRef<UPlot.AlignedData>([[]]);
  latest.current = [times, ...lines.map(({ values }) => values)] as UPlot.AlignedData; // SAFE: uPlot changes none of them
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const make = () => {
      plot.current?.destroy();
      plot.current = new UPlot(optionsOf({ format, lines, isBytes, fillsBetween }, element), latest.current, element);
    };
    make();
    const dark = matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', make);
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    resized.observe(element);
    return () => {
      dark.removeEventListener('change', make);
      resized.disconnect();
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(latest.current));
  return (
    <figure class="plot">
      <div ref={place} role="img" aria-label={`${title}, since this page was opened`} />
      <figcaption>
        {lines.map(({ name, colour, values }) => (
          <span key={name}>
            <i style={{ background: `var(${colour})` }} />
            {name} {valueText(values.at(-1), format)}
          </span>
        ))}
      </figcaption>
    </figure>
  );
}

const valueText = (value: number | undefined, format: (value: number) => string): string =>
  value === undefined ? '–' : format(value);

function optionsOf(
  { format, lines, isBytes, fillsBetween }: Pick<PlotProps, 'format' | 'lines' | 'isBytes' | 'fillsBetween'>,
  element: HTMLElement,
): UPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const font = `11px ${style.fontFamily}`;
  const axis = {
    font,
    stroke: colour('--faint'),
    grid: { stroke: colour('--line'), width: 1 },
    ticks: { show: false },
  };
  return {
    width: element.clientWidth,
    height,
    cursor: { show: false },
    legend: { show: false },
    padding: [8, 28, 0, 0],
    scales: {
      x: { time: true, range: (_, first, last) => [Math.min(first, last - leastSeconds), last] },
      y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] },
    },
    axes: [
      {
        ...axis,
        space: 90,
        size: 24,
        grid: { show: false },
        values: (_, all) => all.map((at) => new Date(at * 1000).toLocaleTimeString('en-GB')),
      },
      {
        ...axis,
        size: 68,
        space: 32,
        gap: 6,
        values: (_, all) => all.map(format),
        ...(isBytes === true ? { incrs: powersOfTwo } : {}),
      },
    ],
    series: [
      {},
      ...lines.map((line) => ({
        label: line.name,
        stroke: colour(line.colour),
        width: 1.5,
        points: { show: false },
        spanGaps: true,
      })),
    ],
    ...(fillsBetween === true ? { bands: [{ series: [1, 2], fill: colour('--between') }] } : {}),
  };
}
