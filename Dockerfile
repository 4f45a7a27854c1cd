# The sidecar with its embedded model; nothing is downloaded when it starts.
#   docker build -t rerank-sidecar .
# For NVIDIA GPUs; the torch of PyPI has CUDA in it, the host needs the driver and container toolkit:
#   docker build --build-arg ACCELERATOR=cuda -t rerank-sidecar:cuda .
#   docker run --gpus all -p 8080:8080 -p 50051:50051 rerank-sidecar:cuda serve --device cuda
# To convert Hugging Face cross-encoders inside the container, which brings torch along:
#   docker build --build-arg EXTRAS=server,disk-cache,convert -t rerank-sidecar:convert .
FROM python:3.11-slim AS build
ARG ACCELERATOR=cpu
ARG EXTRAS=server,disk-cache,remote
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
COPY adapters adapters
RUN case "${ACCELERATOR}" in \
      cpu) extras="${EXTRAS}" ;; \
      cuda) extras="${EXTRAS},torch" ;; \
      *) echo "ACCELERATOR must be cpu or cuda, not '${ACCELERATOR}'." >&2; exit 1 ;; \
    esac && \
    python -m venv /opt/rerank-sidecar && \
    /opt/rerank-sidecar/bin/pip install --no-cache-dir ".[${extras}]"

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 sidecar && \
    install --directory --owner=sidecar /home/sidecar/.cache
COPY --from=build /opt/rerank-sidecar /opt/rerank-sidecar
ENV PATH=/opt/rerank-sidecar/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    RERANK_SIDECAR_HOST=0.0.0.0 \
    RERANK_SIDECAR_LOG_FORMAT=json \
    MALLOC_ARENA_MAX=2
USER 10001
VOLUME /home/sidecar/.cache
EXPOSE 8080 50051
HEALTHCHECK --interval=5s --timeout=5s --retries=24 CMD ["rerank-sidecar", "probe"]
ENTRYPOINT ["rerank-sidecar"]
CMD ["serve"]
