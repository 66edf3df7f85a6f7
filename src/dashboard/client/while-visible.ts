/** The parts of a document that tell whether it is seen. */
interface VisibleDocument {
  readonly hidden: boolean;
  addEventListener(event: 'visibilitychange', listener: () => void): void;
  removeEventListener(event: 'visibilitychange', listener: () => void): void;
}

/** Begins work whenever the page becomes visible; its signal aborts when the page is hidden, or by the returned function. */
export function whileVisible(page: VisibleDocument, begin: (signal: AbortSignal) => void): () => void {
  let stop: AbortController | undefined;
  const look = () => {
    if (page.hidden) {
      stop?.abort();
      stop = undefined;
    } else if (stop === undefined) {
      stop = new AbortController();
      begin(stop.signal);
    }
  };
  page.addEventListener('visibilitychange', look);
  look();
  return () => {
    page.removeEventListener('visibilitychange', look);
    stop?.abort();
  };
}
