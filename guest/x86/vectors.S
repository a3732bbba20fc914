/* Where exceptions and interrupts begin; each width has its own, around `caught` and `interrupted`. */
	.text
	.balign HANDLER_BYTES
	.globl handlers
handlers:
	.set vector, 0
	.rept EXCEPTIONS
	.balign HANDLER_BYTES
	/* 8, 10 to 14, 17, 21, 29 and 30 push an error code (SDM 3A, 6.15; APM 2, 8.2) */
	.if !((0x60227d00 >> vector) & 1)
	push $0
	.endif
	push $vector
	jmp caught
	.set vector, vector + 1
	.endr
	.rept INTERRUPTS
	.balign HANDLER_BYTES
	jmp interrupted
	.endr
