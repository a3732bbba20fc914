/*
 * What every stub and the harness exchange, whatever the architecture; its own is in the protocol.h beside
 * its stub: the structures job, result, batch and machine_info. The harness reads their layouts, the
 * enumerators and the addresses of `batch` and `machine_info` from the stub's debug information.
 * All numbers are in the byte order of the stub; "physical" is a guest physical address.
 *
 * The console carries only control: a line of text each way, which a person can type as well.
 *
 *     (start)        -> ready 4               the version of this protocol
 *     run NONCE      -> done NONCE COUNT      the jobs of `batch` are executed, COUNT in decimal
 *     park NONCE     -> parked NONCE          the tested tables are loaded and stay so
 *     leave          -> left NONCE            only while parked
 *     help           -> the list of commands
 *     anything else  -> error SENTENCE
 *
 * NONCE is 16 hexadecimal digits, those of batch.nonce: the answer of another run can not pass for this
 * one's.  An exception that no probe provoked is reported as `panic NAME=VALUE...` and the stub halts.
 */
#ifndef EXCHANGE_H
#define EXCHANGE_H

enum protocol { PROTOCOL_VERSION = 4 };

/* Words a job can patch and watch: the entries of a five-level path, and the word that the access reaches. */
enum { WORDS = 6 };

/*
 * do_word(i) for each i below count.  Without a loop, which would be half of all instructions of a probe: the local
 * KVM interprets the supervisor's, and takes a microsecond for each.  Most probes have five words.
 */
#define FOR_WORDS(count, do_word)						\
	switch (__builtin_expect(count, 5)) {					\
	case 6: do_word(5); __attribute__((fallthrough));			\
	case 5: do_word(4); __attribute__((fallthrough));			\
	case 4: do_word(3); __attribute__((fallthrough));			\
	case 3: do_word(2); __attribute__((fallthrough));			\
	case 2: do_word(1); __attribute__((fallthrough));			\
	case 1: do_word(0);							\
	}
_Static_assert(WORDS == 6, "FOR_WORDS");

#endif
