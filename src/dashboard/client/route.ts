import { useEffect, useState } from 'preact/hooks';

/** Path and query of the address: all state of a page that a link carries. */
export interface Route {
  readonly path: string;
  readonly query: URLSearchParams;
}

const routeNow = (): Route => ({ path: location.pathname, query: new URLSearchParams(location.search) });

/** The address, also after a link of these pages or the browser's buttons. */
export function useRoute(): Route {
  const [route, setRoute] = useState(routeNow);
  useEffect(() => {
    const take = () => setRoute(routeNow());
    const follow = (event: MouseEvent) => {
      const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
      const link = event.target instanceof Element ? event.target.closest('a') : null;
      if (!isPlain || event.defaultPrevented || link === null || link.origin !== location.origin || link.hash !== '')
        return;
      event.preventDefault();
      go(link.pathname + link.search);
    };
    addEventListener('popstate', take);
    addEventListener(changed, take);
    document.addEventListener('click', follow);
    return () => {
      removeEventListener('popstate', take);
      removeEventListener(changed, take);
      document.removeEventListener('click', follow);
    };
  }, []);
  return route;
}

const changed = 'podvm:route';

/** Goes to a page. */
export function go(to: string): void {
  const isOther = new URL(to, location.href).pathname !== location.pathname;
  history.pushState(null, '', to);
  if (isOther) {
    scrollTo(0, 0);
    document.getElementById('main')?.focus(); // a screen reader goes on with the new page
  }
  dispatchEvent(new Event(changed));
}

/** Changes the query without a step of history. An empty value is left out. */
export function setQuery(change: Readonly<Record<string, string>>): void {
  const to = withQuery(change);
  history.replaceState(null, '', to);
  dispatchEvent(new Event(changed));
}

/** The address of this page with another query. */
export function withQuery(change: Readonly<Record<string, string>>): string {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(change)) {
    if (value === '') query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return location.pathname + (text === '' ? '' : `?${text}`);
}
