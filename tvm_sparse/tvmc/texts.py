"""Every help text of the command line."""

DESCRIPTION = "TVM compiler driver for sparse models: compiles pruned networks and runs them."
EPILOG = "tvmc COMMAND --help explains a command."
VERBOSE = "more messages: -v what is done, -vv also tracebacks of errors"
VERSION = "print the version and exit"

MODEL = "model file: ONNX (.onnx) or a saved torch.export program (.pt2)"
MODEL_FORMAT = "format of the model file (default: by its suffix)"
INPUT_SHAPES = 'shapes of inputs; needed where the model leaves one open: "name:[1,3,224,224] name2:[1,2]"'
NUM_THREADS = (
    "threads of parallel loops (default: TVM_NUM_THREADS, else all physical cores); "
    "TVM_BIND_THREADS=1 binds them to cores"
)

COMPILE = "compile a model"
OUTPUT = "package to write (default: module.tar); the suffix .so gives a plain library with a .json beside it"
OUTPUT_FORMAT = "form of the compiled code: a shared library is the only one"
CROSS_COMPILER = "compiler that links the library for another architecture, such as aarch64-linux-gnu-g++"
CROSS_COMPILER_OPTIONS = "options of the cross compiler"
DUMP_CODE = "also write what was compiled as <output>.<format>: comma-separated list of asm, ll, tir, relax"
OPT_LEVEL = "level of optimisation, 0 to 3 (default: 3)"
DISABLED_PASS = "comma-separated list of passes to leave out"
PASS_CONFIG = "setting of TVM's PassContext, as name=value; may be repeated"
PRINT_PASS_TIMES = "print the time of each pass"
PRINT_IR_BEFORE = "comma-separated list of passes; prints the module before each; * for all"
PRINT_IR_AFTER = "comma-separated list of passes; prints the module after each; * for all"
EXECUTOR = "accepted for old scripts: there is one executor, the Relax virtual machine"
RUNTIME = "accepted for old scripts: there is one runtime, cpp"
SPARSITY = (
    "auto: use zeros in weights; off: every layer dense; or a plan file that --dump-plan wrote and you edited"
)
SPARSITY_THRESHOLD = "layers with a smaller share of zeros stay dense (default: 0.5)"
SPARSE_FORMAT = "format of sparse layers (default: auto, the fastest by the cost model)"
BLOCK_SHAPE = "shape of the blocks of the block format, output channels by input channels (default: auto, any)"
DUMP_PLAN = "write the plan (format and kernel of each layer, and why) as JSON"
COMPILE_NUM_THREADS = "threads that the package uses, and batches are split for (default: decided where it runs)"

TARGET = (
    "what to compile for: a kind (llvm), a kind with options ('llvm -mcpu=znver4'), inline JSON, or the path "
    "of a JSON file (default: llvm for the CPU of this machine)"
)
TARGET_OPTION = "{option} of an {kind} target"

RUN = "run a compiled model"
PACKAGE = "package made by tvmc compile"
DEVICE = "where to run (default: cpu)"
INPUTS = "inputs as a .npz file with one array per input"
OUTPUTS = "write the outputs to a .npz file, as output_0, output_1, ..."
FILL_MODE = "inputs where --inputs isn't given (default: random)"
PRINT_TIME = "time the model and print a summary"
PRINT_TOP = "print the N largest values of the first output, with their indices"
PROFILE = "print the time of each layer, its speed, and how near it comes to the limit of the machine that binds it"
PROFILE_OUTPUT = "write the profile as JSON"
REPEAT = "how often to measure (default: 1)"
NUMBER = "runs per measurement; each measurement is their mean (default: 10)"
END_TO_END = "count also the copies of inputs and outputs"

ANALYZE = "show how sparse a model's layers are and what each format would bring"
WHAT_IF = "also estimate the speed-up at these shares of zeros, 0 to 1 (default: 0.5 0.8 0.9 0.95)"

BENCHMARK = "compare engines on one model"
BENCHMARK_MODEL = "an ONNX model, or a package (timed by the tvm engine alone)"
ENGINES = "comma-separated list of tvm, onnxruntime, openvino, deepsparse (default: all that are installed)"
BATCH_SIZE = "size of the first dimension where the model leaves it open"
TIME = "seconds that each engine is timed (default: 5)"
WARMUP = "seconds that each engine runs before (default: 1)"
ROUNDS = "each engine's time is spent in this many turns (default: 5)"
NUM_CORES = "cores, and threads, that every engine is confined to (default: all that this process may use)"
PYTHON = "interpreter of the environment that holds an engine, as ENGINE=PATH; may be repeated"
EXPORT = "write the results as JSON"
