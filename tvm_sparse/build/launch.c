// Runs the parallel loops of a compiled model: linked into its library in place of TVM's launcher.
//
// A loop is cut into chunks of iterations. Each thread owns a contiguous block of them, the same one in every loop of
// that many iterations, so that its cache holds what it reads next; a thread that has done its own takes chunks from
// the end of the longest block that is left. The caller works too and never waits for a thread that has not started: it
// takes that thread's chunks. So a core that another process slows down, or takes away, does less; a worker that lost
// its core in the middle of a chunk finishes it on the caller's (Linux). What is computed does not depend on who
// computes it.
//
// With TVM_BIND_THREADS=1 each worker stays on a core of its own; the caller, a thread of the program, goes where it may.
//
// Idle workers look for work for a short time, then sleep. One loop at a time has the workers; a loop inside of a loop,
// or one that another thread of the program starts meanwhile, runs on the thread that starts it.
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tvm/ffi/c_api.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#endif

#define MAX_THREADS 256
// A loop of more iterations than this for each thread is cut into chunks of several.
#define CHUNKS_PER_THREAD 32
// How long an idle thread looks for work before it sleeps. To wake it costs a few microseconds of the caller's time and
// ten times that until it works; the serial parts of a model between two loops are shorter than this.
#define SPIN_NANOSECONDS 60000
#define PAUSES_PER_LOOK_AT_THE_CLOCK 16
// A thread that gets no processor time for so long does not run.
#define HELD_UP_NANOSECONDS 5000
// A worker that takes no part in so many launches is looked at.
#define LAUNCHES_UNSEEN 16
// How long a worker stays where it was moved to.
#define AWAY_NANOSECONDS 50000000
#define CACHE_LINE 128

// What TVM's generated code passes to each task of a loop, and the task itself.
typedef struct {
  void* sync_handle;
  int32_t num_task;
} ParallelGroupEnv;
typedef int (*ParallelLambda)(int task_id, ParallelGroupEnv* environment, void* closure);

// Chunks [next, end) that are left of a thread's block, and the launch that they belong to, in one word so that one
// compare-and-swap takes a chunk of that launch or none.
typedef uint64_t Block;

static Block MakeBlock(uint32_t launch, uint32_t next, uint32_t end) {
  return (uint64_t)launch << 32 | (uint64_t)next << 16 | end;
}
static uint32_t LaunchOf(Block block) { return (uint32_t)(block >> 32); }
static uint32_t NextOf(Block block) { return (uint32_t)(block >> 16) & 0xffff; }
static uint32_t EndOf(Block block) { return (uint32_t)block & 0xffff; }

typedef struct {
  _Alignas(CACHE_LINE) _Atomic(Block) block;  // block 0 is the caller's, block i + 1 worker i's
} Slot;

typedef struct {
  _Alignas(CACHE_LINE) atomic_uint posted;  // the last launch that the worker takes part in
  atomic_uint asleep;
  uint32_t first_seen;  // value of `posted` when the worker was created
  pthread_t thread;
  atomic_uint seen;     // the last launch that it took part in
  atomic_uint working;  // whether it does so at this moment
  atomic_uint lent;     // whether it does so on the caller's core
#if defined(__linux__)
  _Atomic(int64_t) moved;  // when it was moved to some of its CPUs; 0: it may use all of them
  cpu_set_t usable;        // all of them, where it was moved
  int held_up;             // of the caller: see `FindHeldUp`
  int64_t time;
#endif
} Worker;

static struct {
  // Set while a launch has the workers.
  _Alignas(CACHE_LINE) atomic_uint busy;
  // Written by the launch that has the workers, read by those who have taken one of its chunks.
  _Alignas(CACHE_LINE) ParallelLambda lambda;
  void* closure;
  uint32_t chunks;
  uint32_t launch;
  uint32_t workers;  // created so far
  _Atomic(uint32_t) threads;
  atomic_uint closed;
  // Chunks that are done; the caller sleeps on it.
  _Alignas(CACHE_LINE) atomic_uint done;
  atomic_uint caller_asleep;
  atomic_uint failed;
  Slot slots[MAX_THREADS];
  Worker worker[MAX_THREADS];
} pool;

// Of the thread that starts loops: threads that its loops may use (0: not set), iterations of the next loop.
static _Thread_local uint32_t requested_threads;
static _Thread_local int64_t announced_extent;

// --- waiting ---------------------------------------------------------------------------------------------------------

static void Pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield" ::: "memory");
#endif
}

static int64_t Nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#if defined(__linux__)
static void SleepWhile(atomic_uint* word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static void Wake(atomic_uint* word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }
static void ForgetSleepers(void) {}
#else
static pthread_mutex_t sleep_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t sleep_condition = PTHREAD_COND_INITIALIZER;
static void SleepWhile(atomic_uint* word, uint32_t value) {
  pthread_mutex_lock(&sleep_mutex);
  while (atomic_load(word) == value) pthread_cond_wait(&sleep_condition, &sleep_mutex);
  pthread_mutex_unlock(&sleep_mutex);
}
static void Wake(atomic_uint* word) {
  (void)word;
  pthread_mutex_lock(&sleep_mutex);
  pthread_cond_broadcast(&sleep_condition);
  pthread_mutex_unlock(&sleep_mutex);
}
static void ForgetSleepers(void) {
  pthread_mutex_init(&sleep_mutex, NULL);
  pthread_cond_init(&sleep_condition, NULL);
}
#endif

// Looks at a word for some nanoseconds, or until it differs from a value, and returns what it is then.
static uint32_t LookForChange(atomic_uint* word, uint32_t value, int64_t nanoseconds) {
  uint32_t now;
  int64_t end = 0;
  for (unsigned pauses = 1; (now = atomic_load_explicit(word, memory_order_acquire)) == value; ++pauses) {
    Pause();
    if (pauses % PAUSES_PER_LOOK_AT_THE_CLOCK != 0) continue;
    int64_t time = Nanoseconds();
    if (end == 0) end = time + nanoseconds;
    if (time >= end) break;
  }
  return now;
}

// Sleeps until a word differs from a value, and returns what it is then. Who changes the word wakes us if `asleep` is
// set.
static uint32_t SleepUntilChange(atomic_uint* word, uint32_t value, atomic_uint* asleep) {
  uint32_t now;
  atomic_store(asleep, 1);
  while ((now = atomic_load(word)) == value) SleepWhile(word, value);
  atomic_store_explicit(asleep, 0, memory_order_relaxed);
  return now;
}

// --- cores -----------------------------------------------------------------------------------------------------------

#if defined(__linux__)
// The first of the CPUs that share a core with this one and that we may use.
static int FirstOfCore(int cpu, const cpu_set_t* usable) {
  char path[96];
  snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
  FILE* file = fopen(path, "r");
  if (file == NULL) return cpu;
  int first = cpu, from, to;
  char separator = ',';
  while (separator == ',' && fscanf(file, "%d", &from) == 1) {
    to = from;
    if (fscanf(file, "%c", &separator) != 1) separator = '\n';
    if (separator == '-' && (fscanf(file, "%d", &to) != 1 || fscanf(file, "%c", &separator) != 1)) separator = '\n';
    for (int sibling = from; sibling <= to && sibling < first; ++sibling) {
      if (sibling >= 0 && sibling < CPU_SETSIZE && CPU_ISSET(sibling, usable)) first = sibling;
    }
  }
  fclose(file);
  return first;
}

// A CPU of each core that we may use, and how many those are.
static int UsableCores(int cpus[CPU_SETSIZE]) {
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof(usable), &usable) != 0) return 0;
  int cores = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &usable) && FirstOfCore(cpu, &usable) == cpu) cpus[cores++] = cpu;
  }
  return cores;
}

// Where that is asked for, binds workers to cores of their own: those after the caller's, the others again where there
// are more workers.
static void BindWorkers(Worker* workers, uint32_t count) {
  const char* text = getenv("TVM_BIND_THREADS");
  if (text == NULL || atoi(text) <= 0) return;
  int cpus[CPU_SETSIZE];
  cpu_set_t usable;
  int cores = UsableCores(cpus), own = 0;
  if (cores < 2 || sched_getaffinity(0, sizeof(usable), &usable) != 0) return;
  int caller = FirstOfCore(sched_getcpu(), &usable);
  while (own < cores && cpus[own] != caller) ++own;
  for (uint32_t i = 0; i < count; ++i) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpus[(own + 1 + (int)i % (cores - 1)) % cores], &one);
    pthread_setaffinity_np(workers[i].thread, sizeof(one), &one);
  }
}
#endif

static uint32_t CountCores(void) {
#if defined(__linux__)
  int cpus[CPU_SETSIZE];
  int cores = UsableCores(cpus);
  if (cores > 0) return (uint32_t)cores;
#endif
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (uint32_t)online : 1;
}

#if defined(__linux__)
static int64_t TimeOnCpu(const Worker* worker) {
  clockid_t clock;
  struct timespec time;
  if (pthread_getcpuclockid(worker->thread, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// Which of some workers get no processor time, since somebody else has their cores. Returns whether there is one.
static int FindHeldUp(uint32_t workers, int (*is_candidate)(const Worker*)) {
  int any = 0;
  for (Worker* worker = pool.worker; worker < pool.worker + workers; ++worker) {
    worker->held_up = is_candidate(worker);
    if (worker->held_up) worker->time = TimeOnCpu(worker);
    any |= worker->held_up;
  }
  if (!any) return 0;
  for (int64_t end = Nanoseconds() + HELD_UP_NANOSECONDS; Nanoseconds() < end;) Pause();
  any = 0;
  for (Worker* worker = pool.worker; worker < pool.worker + workers; ++worker) {
    worker->held_up = worker->held_up && TimeOnCpu(worker) == worker->time;
    any |= worker->held_up;
  }
  return any;
}

static int IsWorking(const Worker* worker) { return (int)atomic_load(&worker->working); }

static int IsAbsent(const Worker* worker) {
  return pool.launch - atomic_load_explicit(&worker->seen, memory_order_relaxed) >= LAUNCHES_UNSEEN;
}

// Whether a worker may be moved to or from a CPU: those that are bound to cores of their own stay there.
static int IsFree(Worker* worker, int cpu) {
  if (atomic_load(&worker->moved) == 0 &&
      pthread_getaffinity_np(worker->thread, sizeof(worker->usable), &worker->usable) != 0) {
    return 0;
  }
  return cpu >= 0 && cpu < CPU_SETSIZE && CPU_COUNT(&worker->usable) > 1 && CPU_ISSET(cpu, &worker->usable);
}

static void Confine(Worker* worker, const cpu_set_t* cpus) {
  atomic_store(&worker->moved, Nanoseconds());
  pthread_setaffinity_np(worker->thread, sizeof(*cpus), cpus);
}

// Keeps a worker away from the caller's CPU for some time.
static void SendAway(Worker* worker, int cpu) {
  cpu_set_t others = worker->usable;
  CPU_CLR(cpu, &others);
  Confine(worker, &others);
}

// The caller, who has nothing to do but wait, has workers finish on its own core that somebody else keeps from theirs.
// It would wait until they get it back, some milliseconds, in which a model runs several layers. Returns whether there
// was one.
static int LendCore(uint32_t workers) {
  if (!FindHeldUp(workers, IsWorking)) return 0;
  int any = 0, cpu = sched_getcpu();
  for (Worker* worker = pool.worker; worker < pool.worker + workers; ++worker) {
    if (!worker->held_up || !IsFree(worker, cpu)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    atomic_store(&worker->lent, 1);
    Confine(worker, &one);
    any = 1;
  }
  return any;
}

static void TakeCoreBack(uint32_t workers) {
  int cpu = sched_getcpu();
  for (Worker* worker = pool.worker; worker < pool.worker + workers; ++worker) {
    if (!atomic_load(&worker->lent)) continue;
    if (IsFree(worker, cpu)) SendAway(worker, cpu);
    atomic_store(&worker->lent, 0);
  }
}

// The system counts threads, not work: where another process uses a core, it may leave a worker on the caller's, where
// it does not get to run. Workers that were not seen for some launches are sent to other cores.
static void SendAbsentAway(uint32_t workers) {
  if (pool.launch % LAUNCHES_UNSEEN != 0 || !FindHeldUp(workers, IsAbsent)) return;
  int cpu = sched_getcpu();
  for (Worker* worker = pool.worker; worker < pool.worker + workers; ++worker) {
    if (worker->held_up && IsFree(worker, cpu)) SendAway(worker, cpu);
  }
}

// Of a worker that begins its part of a launch: after some time it may go wherever it might before.
static void Return(Worker* self) {
  int64_t moved = atomic_load_explicit(&self->moved, memory_order_acquire);
  if (moved == 0 || Nanoseconds() - moved < AWAY_NANOSECONDS) return;
  pthread_setaffinity_np(pthread_self(), sizeof(self->usable), &self->usable);
  // If it was moved again meanwhile, it returns later.
  atomic_compare_exchange_strong(&self->moved, &moved, 0);
}
#else
static int LendCore(uint32_t workers) { return (void)workers, 0; }
static void TakeCoreBack(uint32_t workers) { (void)workers; }
static void SendAbsentAway(uint32_t workers) { (void)workers; }
static void Return(Worker* self) { (void)self; }
#endif

// --- working ---------------------------------------------------------------------------------------------------------

// Takes the first chunk of a block, or the last if it is another thread's; -1 if none of this launch is left.
static int Take(uint32_t slot, uint32_t launch, int last) {
  _Atomic(Block)* word = &pool.slots[slot].block;
  Block block = atomic_load_explicit(word, memory_order_acquire);
  while (LaunchOf(block) == launch && NextOf(block) < EndOf(block)) {
    uint32_t next = NextOf(block), end = EndOf(block);
    Block rest = last ? MakeBlock(launch, next, end - 1) : MakeBlock(launch, next + 1, end);
    if (atomic_compare_exchange_weak_explicit(word, &block, rest, memory_order_acq_rel, memory_order_acquire)) {
      return (int)(last ? end - 1 : next);
    }
  }
  return -1;
}

// The slot with most chunks left, or -1.
static int LongestBlock(uint32_t launch, uint32_t threads) {
  int longest = -1;
  uint32_t most = 0;
  for (uint32_t slot = 0; slot < threads; ++slot) {
    Block block = atomic_load_explicit(&pool.slots[slot].block, memory_order_relaxed);
    uint32_t left = EndOf(block) - NextOf(block);
    if (LaunchOf(block) == launch && left > most) {
      most = left;
      longest = (int)slot;
    }
  }
  return longest;
}

// Does chunks of a launch while there are any. Returns whether one of them failed.
static int Work(uint32_t own, uint32_t launch) {
  uint32_t taken = 0, total = 0;
  int failed = 0;
  for (int slot = (int)own; slot >= 0;) {
    int chunk = Take((uint32_t)slot, launch, slot != (int)own);
    if (chunk >= 0) {
      // The launch lasts until this chunk is done: only now its fields are sure to be this launch's.
      total = pool.chunks;
      ParallelGroupEnv environment = {NULL, (int32_t)total};
      if (pool.lambda(chunk, &environment, pool.closure) != 0) failed = 1;
      ++taken;
    }
    if (chunk < 0 || slot != (int)own) {
      slot = LongestBlock(launch, atomic_load_explicit(&pool.threads, memory_order_relaxed));
    }
  }
  if (failed) atomic_store_explicit(&pool.failed, 1, memory_order_relaxed);
  if (taken > 0 && atomic_fetch_add(&pool.done, taken) + taken == total && own != 0 &&
      atomic_load(&pool.caller_asleep)) {
    Wake(&pool.done);
  }
  return failed;
}

static void* RunWorker(void* argument) {
  Worker* self = argument;
  uint32_t own = (uint32_t)(self - pool.worker) + 1;
  uint32_t seen = self->first_seen;
  for (;;) {
    uint32_t last = seen;
    // On the caller's core it makes room at once.
    int64_t patience = atomic_load_explicit(&self->lent, memory_order_relaxed) ? 0 : SPIN_NANOSECONDS;
    seen = LookForChange(&self->posted, last, patience);
    if (seen == last) seen = SleepUntilChange(&self->posted, last, &self->asleep);
    if (atomic_load(&pool.closed)) return NULL;
    Return(self);
    atomic_store_explicit(&self->seen, seen, memory_order_relaxed);
    atomic_store(&self->working, 1);
    Work(own, seen);
    atomic_store(&self->working, 0);
  }
}

static void Post(Worker* worker, uint32_t launch) {
  atomic_store(&worker->posted, launch);
  if (atomic_load(&worker->asleep)) Wake(&worker->posted);
}

// --- threads ---------------------------------------------------------------------------------------------------------

// A forked child has none of its parent's workers, nor a launch that was under way.
static void ForgetWorkers(void) {
  ForgetSleepers();
  pool.workers = 0;
  atomic_store(&pool.caller_asleep, 0);
  atomic_store(&pool.busy, 0);
}

// Creates workers up to a count, as far as the system allows. The caller has the pool.
static void CreateWorkers(uint32_t count) {
  static int registered;
  if (pool.workers >= count) return;
  if (!registered) registered = pthread_atfork(NULL, NULL, ForgetWorkers) == 0;
  // Signals are for the program's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (pool.workers < count) {
    Worker* worker = &pool.worker[pool.workers];
    atomic_store(&worker->asleep, 0);
    atomic_store(&worker->seen, pool.launch);
    atomic_store(&worker->working, 0);
    atomic_store(&worker->lent, 0);
#if defined(__linux__)
    atomic_store(&worker->moved, 0);
#endif
    worker->first_seen = atomic_load(&worker->posted);
    if (pthread_create(&worker->thread, NULL, RunWorker, worker) != 0) break;
    ++pool.workers;
  }
#if defined(__linux__)
  BindWorkers(pool.worker, pool.workers);
#endif
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

// Before the library is unloaded, or the program ends, no thread may be left in its code.
__attribute__((destructor)) static void JoinWorkers(void) {
  atomic_store(&pool.closed, 1);
  for (uint32_t i = 0; i < pool.workers; ++i) Post(&pool.worker[i], atomic_load(&pool.worker[i].posted) + 1);
  for (uint32_t i = 0; i < pool.workers; ++i) pthread_join(pool.worker[i].thread, NULL);
  pool.workers = 0;
}

static uint32_t Clamp(int64_t count) { return (uint32_t)(count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : count); }

// Threads of a caller that has not said how many: as the environment says, else one for each core that it may use.
static uint32_t DefaultThreads(void) {
  static atomic_uint known;
  uint32_t threads = atomic_load_explicit(&known, memory_order_relaxed);
  if (threads == 0) {
    const char* names[] = {"TVM_NUM_THREADS", "OMP_NUM_THREADS"};
    for (size_t i = 0; i < 2 && threads == 0; ++i) {
      const char* text = getenv(names[i]);
      if (text != NULL && atoi(text) > 0) threads = Clamp(atoi(text));
    }
    if (threads == 0) threads = Clamp(CountCores());
    atomic_store_explicit(&known, threads, memory_order_relaxed);
  }
  return threads;
}

// --- what compiled code and programs call ------------------------------------------------------------------------------

// Compiled code calls this before each parallel loop, since TVM tells a launcher only the loop's body.
__attribute__((visibility("hidden"))) int32_t tvm_sparse_announce_loop(int64_t extent) {
  announced_extent = extent;
  return 0;
}

static int Launch(ParallelLambda lambda, void* closure, int num_task) {
  int64_t extent = announced_extent;
  announced_extent = 0;
  uint32_t threads = requested_threads != 0 ? requested_threads : DefaultThreads();
  // A loop that was not announced may have any number of iterations.
  if (extent <= 0) extent = num_task > 0 ? num_task : (int64_t)threads * CHUNKS_PER_THREAD;
  if (extent < threads) threads = (uint32_t)extent;
  if (threads == 1 || atomic_exchange_explicit(&pool.busy, 1, memory_order_acquire) != 0) {
    ParallelGroupEnv environment = {NULL, 1};
    return lambda(0, &environment, closure);
  }
  if (!atomic_load_explicit(&pool.closed, memory_order_relaxed)) CreateWorkers(threads - 1);
  if (threads > pool.workers + 1) threads = pool.workers + 1;
  // Generated code gives each of num_task tasks as many iterations, rounded up; the last tasks may find none.
  int64_t step = extent / ((int64_t)threads * CHUNKS_PER_THREAD);
  uint32_t chunks = (uint32_t)(step <= 1 ? extent : (extent + step - 1) / step);
  uint32_t launch = ++pool.launch;
  pool.lambda = lambda;
  pool.closure = closure;
  pool.chunks = chunks;
  atomic_store_explicit(&pool.threads, threads, memory_order_relaxed);
  atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
  atomic_store_explicit(&pool.failed, 0, memory_order_relaxed);
  for (uint32_t i = 0; i < threads; ++i) {
    Block block = MakeBlock(launch, chunks * i / threads, chunks * (i + 1) / threads);
    atomic_store_explicit(&pool.slots[i].block, block, memory_order_release);
  }
  for (uint32_t i = 0; i + 1 < threads; ++i) Post(&pool.worker[i], launch);
  int own_failed = Work(0, launch);
  int lent = 0;
  for (uint32_t done = atomic_load_explicit(&pool.done, memory_order_acquire); done != chunks;) {
    uint32_t last = done;
    done = LookForChange(&pool.done, last, SPIN_NANOSECONDS);
    if (done != last) continue;
    lent |= LendCore(threads - 1);
    done = SleepUntilChange(&pool.done, last, &pool.caller_asleep);
  }
  if (lent) TakeCoreBack(threads - 1);
  SendAbsentAway(threads - 1);
  int failed = (int)atomic_load_explicit(&pool.failed, memory_order_relaxed);
  atomic_store_explicit(&pool.busy, 0, memory_order_release);
  if (failed && !own_failed) {
    // The worker's thread has the error, this one's caller looks for it here.
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", "a task of a parallel loop failed on another thread");
  }
  return failed ? -1 : 0;
}

// The variable through which generated code finds its launcher. TVM's runtime sets it where it can see it, which it
// cannot since ours is hidden; being no weak definition like those of the generated code, it stands for all of them.
__attribute__((visibility("hidden"))) int (*__TVMBackendParallelLaunch)(ParallelLambda, void*, int) = Launch;

// The library's function "tvm_sparse_use_threads": threads of the loops that the calling thread starts from now on; 0
// for the environment's count.
__attribute__((visibility("default"))) int __tvm_ffi_tvm_sparse_use_threads(
    void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)self;
  if (count != 1 || arguments[0].type_index != kTVMFFIInt) {
    TVMFFIErrorSetRaisedFromCStr("TypeError", "tvm_sparse_use_threads takes one integer");
    return -1;
  }
  requested_threads = arguments[0].v_int64 <= 0 ? 0 : Clamp(arguments[0].v_int64);
  result->type_index = kTVMFFINone;
  result->v_int64 = 0;
  return 0;
}
