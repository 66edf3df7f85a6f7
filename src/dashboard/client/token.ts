const stored = 'podvm.token';

/** The parts of a window that have to do with the token. */
interface TokenWindow {
  readonly location: { readonly hash: string; readonly pathname: string; readonly search: string };
  readonly history: { replaceState(data: null, unused: string, url: string): void };
  readonly localStorage: { setItem(name: string, value: string): void };
  addEventListener(event: 'hashchange', listener: () => void): void;
}

/**
 * Takes the token from the fragment of the address, where `podvm dashboard` put it, and keeps it for this origin: links
 * open in other tabs, too. A newer address on the same port that is opened in this tab changes the fragment only, and
 * loads nothing.
 */
export function takeTokens(page: TokenWindow): void {
  const take = () => {
    const [, token] = /^#token=([0-9a-f]{64})$/.exec(page.location.hash) ?? [];
    if (token === undefined) return;
    page.localStorage.setItem(stored, token);
    page.history.replaceState(null, '', page.location.pathname + page.location.search);
  };
  page.addEventListener('hashchange', take);
  take();
}

export const tokenOf = (storage: { getItem(name: string): string | null }): string => storage.getItem(stored) ?? '';
