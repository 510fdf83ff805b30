"""The machine code that threads walk a plan with, as LLVM's text.

Entries are taken from a phase's counter. Whoever finishes the last entry of a phase opens the next one, so nobody
waits for a thread that has nothing in hand. `run(entries, phases, counters, count)` is for the calling thread,
`worker(index)` for every other one, and `stop()` has the workers return.
"""

from __future__ import annotations

# Of spinning before a thread sleeps: a few tenths of a millisecond. Waking it costs less, but on a shared machine
# threads lag behind each other; with a tenth of this they fell asleep at every turn, and a step of 3 ms took 5.
ROUNDS = 20_000

# The state of a pool. `tick` counts the phases of all runs: phase p of this run is open while tick = base + p, and the
# run is over at base + count. It is what threads wait on; below zero the pool ends. Between `open` = 1 and `open` = 0
# the run's description stays as it is; a worker reads it only while it is `inside`, and the run ends when none is.
# A counter holds the number of entries taken in its lower half and of entries done in its upper half.
STATE = """
%Entry = type {{ ptr, ptr, i64, i64 }}                   ; kernel, arguments, from, to
%Phase = type {{ i64, i64 }}                             ; first entry, end
%Counter = type {{ i64, [7 x i64] }}
%Seat = type {{ i64, [7 x i64], i64, ptr, [6 x i64] }}   ; inside; asleep, lock

@tick = internal global i64 0, align 64
@open = internal global i64 0, align 64
@sleepers = internal global i64 0, align 64
@entries = internal global ptr null, align 64
@phases = internal global ptr null
@counters = internal global ptr null
@base = internal global i64 0
@count = internal global i64 0
@threads = internal constant i64 {threads}
@acquire = internal constant ptr inttoptr (i64 {acquire} to ptr)
@release = internal constant ptr inttoptr (i64 {release} to ptr)
@seats = internal global [{threads} x %Seat] [{seats}], align 64
"""
SEAT = (
    "%Seat {{ i64 0, [7 x i64] zeroinitializer, i64 0, ptr inttoptr (i64 {lock} to ptr), [6 x i64] zeroinitializer }}"
)

# Sleeping. The sleeper first says that it sleeps and then looks at the word once more; whoever changes the word looks
# for sleepers afterwards. All four are sequentially consistent, so at least one of the two sees the other. Whoever
# takes `asleep` from 1 to 0 decides: a waker has then to release the lock, and the sleeper to acquire it.
SLEEP = """
define internal void @await(ptr %seat, ptr %word, i64 %value) {{
enter:
  br label %spin
spin:
  %round = phi i64 [ 0, %enter ], [ %next, %again ]
  %now = load atomic i64, ptr %word acquire, align 8
  %same = icmp eq i64 %now, %value
  br i1 %same, label %again, label %leave
again:
  call void @pause()
  %next = add i64 %round, 1
  %impatient = icmp eq i64 %next, {rounds}
  br i1 %impatient, label %announce, label %spin
announce:
  %asleep = getelementptr %Seat, ptr %seat, i64 0, i32 2
  %1 = atomicrmw xchg ptr %asleep, i64 1 seq_cst
  %2 = atomicrmw add ptr @sleepers, i64 1 seq_cst
  %last = load atomic i64, ptr %word seq_cst, align 8
  %still = icmp eq i64 %last, %value
  br i1 %still, label %sleep, label %rise
rise:
  %claim = atomicrmw xchg ptr %asleep, i64 0 seq_cst
  %mine = icmp eq i64 %claim, 1
  br i1 %mine, label %withdraw, label %sleep
withdraw:
  %3 = atomicrmw sub ptr @sleepers, i64 1 seq_cst
  ret void
sleep:
  %place = getelementptr %Seat, ptr %seat, i64 0, i32 3
  %lock = load ptr, ptr %place
  %acquire = load ptr, ptr @acquire
  %4 = call i32 %acquire(ptr %lock, i32 1)
  ret void
leave:
  ret void
}}

define internal i64 @wake(ptr %seat) {{
  %asleep = getelementptr %Seat, ptr %seat, i64 0, i32 2
  %flag = load atomic i64, ptr %asleep seq_cst, align 8
  %sleeps = icmp eq i64 %flag, 1
  br i1 %sleeps, label %claim, label %no
claim:
  %old = atomicrmw xchg ptr %asleep, i64 0 seq_cst
  %mine = icmp eq i64 %old, 1
  br i1 %mine, label %yes, label %no
yes:
  %1 = atomicrmw sub ptr @sleepers, i64 1 seq_cst
  %place = getelementptr %Seat, ptr %seat, i64 0, i32 3
  %lock = load ptr, ptr %place
  %release = load ptr, ptr @release
  call void %release(ptr %lock)
  ret i64 1
no:
  ret i64 0
}}

; set the tick and wake up to `wanted` sleepers of the first `limit` seats
define internal void @announce(i64 %tick, i64 %wanted, i64 %limit) {{
enter:
  %1 = atomicrmw xchg ptr @tick, i64 %tick seq_cst
  %sleepers = load atomic i64, ptr @sleepers seq_cst, align 8
  %none = icmp eq i64 %sleepers, 0
  br i1 %none, label %leave, label %look
look:
  %i = phi i64 [ 0, %enter ], [ %next, %try ]
  %left = phi i64 [ %wanted, %enter ], [ %rest, %try ]
  %more = icmp ult i64 %i, %limit
  %wants = icmp ne i64 %left, 0
  %go = and i1 %more, %wants
  br i1 %go, label %try, label %leave
try:
  %seat = getelementptr %Seat, ptr @seats, i64 %i
  %woken = call i64 @wake(ptr %seat)
  %rest = sub i64 %left, %woken
  %next = add i64 %i, 1
  br label %look
leave:
  ret void
}}
"""

# Working through a phase. Phases of one entry are not announced: whoever finished the phase before does them as well.
# `who` is the number of the thread, by which kernels find memory that is theirs alone.
WORK = """
define internal void @call(i64 %index, i64 %who) {
  %entries = load ptr, ptr @entries
  %entry = getelementptr %Entry, ptr %entries, i64 %index
  %1 = getelementptr %Entry, ptr %entry, i64 0, i32 1
  %2 = getelementptr %Entry, ptr %entry, i64 0, i32 2
  %3 = getelementptr %Entry, ptr %entry, i64 0, i32 3
  %kernel = load ptr, ptr %entry
  %arguments = load ptr, ptr %1
  %from = load i64, ptr %2
  %to = load i64, ptr %3
  call void %kernel(ptr %arguments, i64 %from, i64 %to, i64 %who)
  ret void
}

define internal %Phase @phase(i64 %index) {
  %phases = load ptr, ptr @phases
  %place = getelementptr %Phase, ptr %phases, i64 %index
  %phase = load %Phase, ptr %place
  ret %Phase %phase
}

define internal void @advance(i64 %from, i64 %who) {
enter:
  %base = load i64, ptr @base
  %count = load i64, ptr @count
  %threads = load i64, ptr @threads
  br label %look
look:
  %p = phi i64 [ %from, %enter ], [ %next, %alone ]
  %tick = add i64 %base, %p
  %more = icmp ult i64 %p, %count
  br i1 %more, label %size, label %over
size:
  %phase = call %Phase @phase(i64 %p)
  %first = extractvalue %Phase %phase, 0
  %end = extractvalue %Phase %phase, 1
  %size1 = sub i64 %end, %first
  %others = sub i64 %size1, 1
  %single = icmp eq i64 %others, 0
  br i1 %single, label %alone, label %together
alone:
  call void @call(i64 %first, i64 %who)
  %next = add i64 %p, 1
  br label %look
together:
  call void @announce(i64 %tick, i64 %others, i64 %threads)
  ret void
over:
  call void @announce(i64 %tick, i64 1, i64 1)
  ret void
}

define internal void @help(i64 %who) {
enter:
  %tick = load atomic i64, ptr @tick acquire, align 8
  %base = load i64, ptr @base
  %count = load i64, ptr @count
  %p = sub i64 %tick, %base
  %open = icmp ult i64 %p, %count
  br i1 %open, label %begin, label %leave
begin:
  %phase = call %Phase @phase(i64 %p)
  %first = extractvalue %Phase %phase, 0
  %end = extractvalue %Phase %phase, 1
  %size = sub i64 %end, %first
  %counters = load ptr, ptr @counters
  %counter = getelementptr %Counter, ptr %counters, i64 %p
  br label %take
take:
  %mine = phi i64 [ 0, %begin ], [ %mine1, %work ]
  %taken = atomicrmw add ptr %counter, i64 1 monotonic
  %i = and i64 %taken, 4294967295
  %some = icmp ult i64 %i, %size
  br i1 %some, label %work, label %report
work:
  %index = add i64 %first, %i
  call void @call(i64 %index, i64 %who)
  %mine1 = add i64 %mine, 1
  br label %take
report:
  %nothing = icmp eq i64 %mine, 0
  br i1 %nothing, label %leave, label %add
add:
  %upper = shl i64 %mine, 32
  %before = atomicrmw add ptr %counter, i64 %upper acq_rel
  %done0 = lshr i64 %before, 32
  %done = add i64 %done0, %mine
  %complete = icmp eq i64 %done, %size
  br i1 %complete, label %open_next, label %leave
open_next:
  %p1 = add i64 %p, 1
  call void @advance(i64 %p1, i64 %who)
  ret void
leave:
  ret void
}
"""

# The three ways in. A run is done when its last phase is and no worker is inside any more.
DOORS = """
define internal void @begin(ptr %entries, ptr %phases, ptr %counters, i64 %count) {
  store ptr %entries, ptr @entries
  store ptr %phases, ptr @phases
  store ptr %counters, ptr @counters
  store i64 %count, ptr @count
  %tick = load atomic i64, ptr @tick monotonic, align 8
  %base = add i64 %tick, 1
  store i64 %base, ptr @base
  ret void
}

define internal void @reset(ptr %counters, i64 %count) {
enter:
  br label %reset
reset:
  %p = phi i64 [ 0, %enter ], [ %next, %reset ]
  %counter = getelementptr %Counter, ptr %counters, i64 %p
  store atomic i64 0, ptr %counter monotonic, align 8
  %next = add i64 %p, 1
  %more = icmp ult i64 %next, %count
  br i1 %more, label %reset, label %leave
leave:
  ret void
}

define internal void @together() {
enter:
  store atomic i64 1, ptr @open seq_cst, align 8
  call void @advance(i64 0, i64 0)
  br label %look
look:
  %tick = load atomic i64, ptr @tick acquire, align 8
  %base = load i64, ptr @base
  %count = load i64, ptr @count
  %p = sub i64 %tick, %base
  %more = icmp ult i64 %p, %count
  br i1 %more, label %work, label %close
work:
  call void @help(i64 0)
  call void @await(ptr @seats, ptr @tick, i64 %tick)
  br label %look
close:
  %1 = atomicrmw xchg ptr @open, i64 0 seq_cst
  %threads = load i64, ptr @threads
  br label %next
next:
  %i = phi i64 [ 1, %close ], [ %i1, %gone ]
  %all = icmp eq i64 %i, %threads
  br i1 %all, label %leave, label %ask
ask:
  %seat = getelementptr %Seat, ptr @seats, i64 %i
  %inside = load atomic i64, ptr %seat seq_cst, align 8
  %out = icmp eq i64 %inside, 0
  br i1 %out, label %gone, label %stay
stay:
  call void @await(ptr @seats, ptr %seat, i64 1)
  br label %ask
gone:
  %i1 = add i64 %i, 1
  br label %next
leave:
  ret void
}

define internal void @alone(i64 %count) {
enter:
  br label %phase
phase:
  %p = phi i64 [ 0, %enter ], [ %next, %done ]
  %phase1 = call %Phase @phase(i64 %p)
  %first = extractvalue %Phase %phase1, 0
  %end = extractvalue %Phase %phase1, 1
  br label %entry
entry:
  %i = phi i64 [ %first, %phase ], [ %i1, %entry ]
  call void @call(i64 %i, i64 0)
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %end
  br i1 %more, label %entry, label %done
done:
  %next = add i64 %p, 1
  %again = icmp ult i64 %next, %count
  br i1 %again, label %phase, label %leave
leave:
  ret void
}

define void @run(ptr %entries, ptr %phases, ptr %counters, i64 %count) {
  %mode = call i64 @flush_denormals()
  call void @begin(ptr %entries, ptr %phases, ptr %counters, i64 %count)
  %threads = load i64, ptr @threads
  %single = icmp eq i64 %threads, 1
  br i1 %single, label %one, label %many
one:
  call void @alone(i64 %count)
  br label %leave
many:
  call void @reset(ptr %counters, i64 %count)
  call void @together()
  br label %leave
leave:
  call void @restore(i64 %mode)
  ret void
}

define void @worker(i64 %index) {
enter:
  %mode = call i64 @flush_denormals()
  %seat = getelementptr %Seat, ptr @seats, i64 %index
  br label %look
look:
  %tick = load atomic i64, ptr @tick acquire, align 8
  %end = icmp slt i64 %tick, 0
  br i1 %end, label %leave, label %go_in
go_in:
  %1 = atomicrmw xchg ptr %seat, i64 1 seq_cst
  %open = load atomic i64, ptr @open seq_cst, align 8
  %running = icmp eq i64 %open, 1
  br i1 %running, label %work, label %go_out
work:
  call void @help(i64 %index)
  br label %go_out
go_out:
  %2 = atomicrmw xchg ptr %seat, i64 0 seq_cst
  %still = load atomic i64, ptr @open seq_cst, align 8
  %awaited = icmp eq i64 %still, 0
  br i1 %awaited, label %tell, label %wait
tell:
  %3 = call i64 @wake(ptr @seats)
  br label %wait
wait:
  call void @await(ptr %seat, ptr @tick, i64 %tick)
  br label %look
leave:
  call void @restore(i64 %mode)
  ret void
}

define void @stop() {
  %threads = load i64, ptr @threads
  call void @announce(i64 -1, i64 %threads, i64 %threads)
  ret void
}
"""

# What the processor calls resting in a spin loop, and taking denormal numbers for zero. On ARM `isb` rests for about
# as long as `pause` does; `yield` does nothing there.
X86 = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse2.pause()
define internal void @pause() {
  call void @llvm.x86.sse2.pause()
  ret void
}
define internal void @restore(i64 %mode) {
  %slot = alloca i32
  %word = trunc i64 %mode to i32
  store i32 %word, ptr %slot
  call void @llvm.x86.sse.ldmxcsr(ptr %slot)
  ret void
}
define internal i64 @flush_denormals() {
  %slot = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %slot)
  %word = load i32, ptr %slot
  %mode = zext i32 %word to i64
  %flushing = or i64 %mode, 32832 ; 0x8040: results (FTZ) and operands (DAZ)
  call void @restore(i64 %flushing)
  ret i64 %mode
}
"""
ARM = """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
declare void @llvm.aarch64.isb(i32)
define internal void @pause() {
  call void @llvm.aarch64.isb(i32 15)
  ret void
}
define internal void @restore(i64 %mode) {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
define internal i64 @flush_denormals() {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  %flushing = or i64 %mode, 16777216 ; bit 24: FZ
  call void @restore(i64 %flushing)
  ret i64 %mode
}
"""
OTHER = """
define internal void @pause() {
  ret void
}
define internal void @restore(i64 %mode) {
  ret void
}
define internal i64 @flush_denormals() {
  ret i64 0
}
"""
PROCESSORS = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}


def text(processor: str, locks: list[int], acquire: int, release: int) -> str:
    """The walker for a pool whose threads sleep on `locks`."""
    seats = ", ".join(SEAT.format(lock=lock) for lock in locks)
    state = STATE.format(threads=len(locks), acquire=acquire, release=release, seats=seats)
    return state + SLEEP.format(rounds=ROUNDS) + WORK + DOORS + PROCESSORS.get(processor, OTHER)
