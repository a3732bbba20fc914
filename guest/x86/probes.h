/* What runs under the tested state, in the window; 32-bit modes have a copy of their own. */
#ifndef PROBES_H
#define PROBES_H

void run_jobs(void);
void stay_parked(void);
void run_jobs_32(void);
void stay_parked_32(void);

#endif
