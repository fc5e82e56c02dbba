// Runs a package that was unpacked into a folder (mod.so, mod.json, mod.params), without Python:
//
//   run_package FOLDER float32:1x3x224x224:image.bin [...]
//
// Each input is DTYPE:SHAPE:FILE, the file holding the elements in C order. Outputs are printed, and written
// in the same form to output_0.bin, output_1.bin, ... in the current folder.
//
// Threads: TVM_NUM_THREADS, by default one for each core that the process may use; a program can also call the library's
// function "tvm_sparse_use_threads" with a number, for the loops that the calling thread starts from then on.
//
// Needs the headers of apache-tvm-ffi; link with libtvm_ffi.so and (-Wl,--no-as-needed) libtvm_runtime.so.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/dtype.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

namespace ffi = tvm::ffi;
using ffi::Tensor;

const DLDevice kCPU{kDLCPU, 0};
const int kPooledAllocator = 2;

// Compiled code reads tensors with aligned vector loads.
struct AlignedAlloc {
  void AllocData(DLTensor* tensor) {
    size_t whole_lines = (ffi::GetDataSize(*tensor) + 63) / 64 * 64;
    tensor->data = std::aligned_alloc(64, whole_lines);
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

Tensor ReadTensor(std::istream& file, int64_t offset, const std::vector<int64_t>& shape, const std::string& dtype) {
  Tensor tensor = Tensor::FromNDAlloc(AlignedAlloc(), ffi::Shape(shape), ffi::StringToDLDataType(dtype), kCPU);
  file.seekg(offset);
  if (!file.read(static_cast<char*>(tensor.data_ptr()), ffi::GetDataSize(tensor))) {
    throw std::runtime_error("a file is too short");
  }
  return tensor;
}

Tensor ReadInput(const std::string& argument) {
  std::stringstream parts(argument);
  std::string dtype, extents, path, extent;
  std::getline(std::getline(std::getline(parts, dtype, ':'), extents, ':'), path);
  std::vector<int64_t> shape;
  for (std::stringstream list(extents); std::getline(list, extent, 'x');) shape.push_back(std::stoll(extent));
  std::ifstream file(path, std::ios::binary);
  return ReadTensor(file, 0, shape, dtype);
}

// The weights: the last argument of the model, if it has any beside its library.
ffi::Array<Tensor> ReadWeights(const std::string& folder) {
  std::ifstream text(folder + "/mod.json");
  std::string metadata((std::istreambuf_iterator<char>(text)), std::istreambuf_iterator<char>());
  auto root = ffi::json::Parse(metadata).cast<ffi::json::Object>();
  ffi::Array<Tensor> weights;
  if (root.count("weights") == 0) return weights;
  std::ifstream file(folder + "/mod.params", std::ios::binary);
  for (const auto& any : root["weights"].cast<ffi::json::Object>()["tensors"].cast<ffi::json::Array>()) {
    auto entry = any.cast<ffi::json::Object>();
    std::vector<int64_t> shape;
    for (const auto& extent : entry["shape"].cast<ffi::json::Array>()) shape.push_back(extent.cast<int64_t>());
    auto dtype = std::string(entry["dtype"].cast<ffi::String>());
    weights.push_back(ReadTensor(file, entry["offset"].cast<int64_t>(), shape, dtype));
  }
  return weights;
}

void WriteOutput(const Tensor& tensor, int index) {
  std::ofstream file("output_" + std::to_string(index) + ".bin", std::ios::binary);
  file.write(static_cast<const char*>(tensor.data_ptr()), ffi::GetDataSize(tensor));
  std::cout << "output_" << index << ": " << ffi::DLDataTypeToString(tensor.dtype()) << tensor.shape() << "\n";
}

int main(int argc, char** argv) {
  std::string folder = argv[1];
  ffi::Module vm =
      ffi::Module::LoadFromFile(folder + "/mod.so")->GetFunction("vm_load_executable", true).value()().cast<ffi::Module>();
  vm->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooledAllocator);
  std::vector<Tensor> inputs;
  for (int i = 2; i < argc; ++i) inputs.push_back(ReadInput(argv[i]));
  std::vector<ffi::AnyView> args(inputs.begin(), inputs.end());
  ffi::Array<Tensor> weights = ReadWeights(folder);
  if (!weights.empty()) args.emplace_back(weights);
  ffi::Any result;
  vm->GetFunction("main").value().CallPacked(args.data(), args.size(), &result);
  // A model with one output returns it as it is, one with several an array of them.
  if (auto single = result.try_cast<Tensor>()) {
    WriteOutput(*single, 0);
  } else {
    int index = 0;
    for (const Tensor& output : result.cast<ffi::Array<Tensor>>()) WriteOutput(output, index++);
  }
  return 0;
}
