/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that does nothing but write, in one boot sector. guest.py describes what it writes and
 * sets the parameters at the end. 16-bit code, BIOS calls only: int 13h/43h writes, int 15h/86h
 * waits. The BIOS destroys registers at will, so everything lives in memory.
 */
        .code16
        .globl  _start

        .set    BUFFER, 0x8000          /* one block of 4096 bytes */
        .set    HARD_DISKS, 0x475       /* BIOS data area: how many disks, ours included */

_start:
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        cld
        ljmp    $0, $1f
1:      sti
        movb    $'B', %al
        call    putc

        movb    HARD_DISKS, %al         /* the last drive: 0x80 + disks - 1, 0x83 at most */
        addb    $0x7f, %al
        cmpb    $0x83, %al
        jbe     1f
        movb    $0x83, %al
1:      movb    %al, last
        cmpb    $0x81, %al
        jae     next
        movb    $'!', %al               /* nothing to write to */
        call    putc
1:      hlt
        jmp     1b

next:                                   /* one number, to every disk in turn */
        movl    seq, %eax
        movw    $BUFFER, %di
        movw    $1024, %cx
        rep stosl
        movl    magic, %eax
        movl    %eax, BUFFER
        movl    start, %eax
        movl    %eax, BUFFER + 8

        movl    seq, %eax               /* lba = base + (((seq * mult) & mask) << shift) */
        mull    mult
        andl    mask, %eax
        movb    shift, %cl
        shll    %cl, %eax
        addl    base, %eax
        movl    %eax, lba

        movb    $0x81, drive
each:
        movzbl  drive, %eax
        movl    %eax, BUFFER + 4
again:
        movw    $8, dap + 2
        movb    drive, %dl
        movw    $0x4300, %ax
        movw    $dap, %si
        int     $0x13
        jc      error
        movb    drive, %al
        addb    $'a' - 0x81, %al
        call    putc
        incb    drive
        movb    drive, %al
        cmpb    last, %al
        jbe     each
        call    wait
        incl    seq
        jmp     next

error:                                  /* tell, and try the same write until it succeeds */
        movb    $'E', %al
        call    putc
        call    wait
        jmp     again

wait:
        movw    pause + 2, %cx
        movw    pause, %dx
        movw    %cx, %ax
        orw     %dx, %ax
        jz      1f
        movb    $0x86, %ah
        int     $0x15
1:      ret

putc:                                   /* al to the first serial port */
        pushw   %ax
        movw    $0x3fd, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        popw    %ax
        movw    $0x3f8, %dx
        outb    %al, %dx
        ret

        .align  4
dap:    .byte   16, 0
        .word   8, BUFFER, 0
lba:    .long   0, 0
drive:  .byte   0
last:   .byte   0

        .org    0x1d0                   /* the parameters: guest.py's PARAMETERS */
magic:  .long   0
seq:    .long   0
start:  .long   0
mult:   .long   0
mask:   .long   0
base:   .long   0                       /* in sectors */
shift:  .long   0
pause:  .long   0                       /* in microseconds */

        .org    510
        .word   0xaa55
