import type { RefObject } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

/** Height of a row, as in the style sheet. */
export const rowHeight = 30;
/** Shorter lists are shown whole. */
const whole = 120;
/** Rows beyond each edge of the window, which a fast scroll shows. */
const spare = 20;

/** The part of a long list that is in sight: a table of thousands of rows takes no longer than one of sixty. */
export function useWindow(rows: number): {
  readonly body: RefObject<HTMLTableSectionElement | null>;
  readonly first: number;
  readonly count: number;
} {
  const body = useRef<HTMLTableSectionElement>(null);
  const [first, setFirst] = useState(0);
  const count = Math.ceil(innerHeight / rowHeight) + 2 * spare;
  useEffect(() => {
    const look = () => {
      const above = -(body.current?.getBoundingClientRect().top ?? 0);
      const at = Math.max(0, Math.floor(above / rowHeight) - spare);
      setFirst(at - (at % 10)); // rows change at every tenth only
    };
    look();
    addEventListener('scroll', look, { passive: true });
    addEventListener('resize', look);
    return () => {
      removeEventListener('scroll', look);
      removeEventListener('resize', look);
    };
  }, []);
  if (rows <= whole) return { body, first: 0, count: rows };
  return { body, first: Math.min(first, Math.max(0, rows - count)), count };
}
