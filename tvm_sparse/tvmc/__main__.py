"""``python -m tvm_sparse.tvmc``."""

from tvm_sparse.tvmc.main import main

if __name__ == "__main__":
    main()
