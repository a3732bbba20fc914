/* The commands of the console, and what the architecture does at them. */
#ifndef COMMANDS_H
#define COMMANDS_H

/* Say that the stub is ready, and obey what comes. */
__attribute__((noreturn)) void serve(void);

/* Execute the jobs of the batch: when it returns, the batch's tables are in use no more. */
void execute_batch(void);
/* Load the batch's tables, wait for "leave", and go back. */
void park_batch(void);

#endif
