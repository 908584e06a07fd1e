# The Embed step as an AWS Batch job on a GPU: the library from this repository with the locked
# dependencies, ONNX Runtime exchanged for its GPU build. No code of its own.
#
#   docker build --platform linux/amd64 -f containers/gpu.Dockerfile -t imageclust-gpu .
FROM python:3.13-slim

# The version of onnxruntime in uv.lock; a test keeps the two equal.
ARG ONNXRUNTIME=1.31.1

WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN pip install --no-cache-dir uv==0.13.9 \
 && uv export --quiet --frozen --no-emit-project --no-default-groups --extra aws \
      --prune onnxruntime --output-file /tmp/requirements.txt \
 && uv export --quiet --frozen --no-emit-project --no-default-groups --extra aws \
      --no-hashes --output-file /tmp/constraints.txt \
 && uv pip install --system --no-cache --requirements /tmp/requirements.txt \
 && uv pip install --system --no-cache --constraints /tmp/constraints.txt \
      "onnxruntime-gpu[cuda,cudnn]==${ONNXRUNTIME}"

COPY layers layers
COPY functions functions
COPY local local
COPY statemachine statemachine
RUN uv pip install --system --no-cache --no-deps .

# Where the CUDA and cuDNN wheels keep their libraries.
ENV LD_LIBRARY_PATH=/usr/local/lib/python3.13/site-packages/nvidia/cu13/lib:/usr/local/lib/python3.13/site-packages/nvidia/cudnn/lib
ENV PYTHONUNBUFFERED=1

WORKDIR /tmp
USER 65532
ENTRYPOINT ["python", "-m", "imageclust.batch"]
CMD ["embed"]
