/** One result of `podvm doctor`. `warn`: pods run, but not as well as they could. `skip`: not checked. */
export interface Finding {
  readonly name: string;
  readonly status: 'ok' | 'warn' | 'fail' | 'skip';
  readonly detail: string;
  readonly fix?: string;
}
